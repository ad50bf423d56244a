"""Gradients of replication padding and of unfolded windows, and replacements of writes into views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy_export.lowering.shape_helpers import pad


def replication_pad_backward(gradient: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    """Compute the gradient of replication padding: add the gradient of an edge's copies to the edge.

    The arguments are those of `aten.replication_pad2d_backward`; dimensions are handled one after the other.
    """
    for i in range(len(padding) // 2):
        dimension = gradient.dim() - 1 - i
        before, after = padding[2 * i : 2 * i + 2]
        size = x.shape[dimension]
        # Edges cut off by negative padding have a gradient of zero.
        grown = pad(gradient, [0] * (2 * i) + [max(0, -before), max(0, -after)])
        before, after = max(0, before), max(0, after)
        if before or after:
            first, middle, last = grown.split([before, size, after], dimension)
            gradient = _add_edges(first, middle, last, dimension)
        else:
            gradient = grown
    return gradient


def _add_edges(before: Tensor, middle: Tensor, after: Tensor, dimension: int) -> Tensor:
    """Add the sum of the part before to the first element, and of the part after to the last."""
    size = middle.shape[dimension]
    first, last = (part.sum(dimension, keepdim=True) for part in (before, after))
    if size == 1:
        return middle + first + last
    inside = first.new_zeros([*middle.shape[:dimension], size - 2, *middle.shape[dimension + 1 :]])
    return middle + torch.cat([first, inside, last], dimension)


def unfold_backward(gradient: Tensor, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    """Compute the gradient of unfold: add each window, which is the last dimension of `gradient`, to its origin.

    The arguments are those of `aten.unfold_backward`. At most ceil(size / step) windows overlap. Each window is cut
    into that many chunks of length `step`, and the chunks of equal index lie side by side.
    """
    dimension = dim % max(len(input_sizes), 1)
    wanted = input_sizes[dimension]
    moved = gradient.movedim(dimension, -2)
    count = moved.shape[-2]
    total: Tensor | None = None
    for start in range(0, size, step):
        chunk = moved[..., start : start + step]
        row = pad(chunk, [0, step - chunk.shape[-1]]).flatten(-2)
        placed = pad(row, [start, wanted - start - count * step])
        total = placed if total is None else total + placed
    assert total is not None
    return total.movedim(-1, dimension)


def copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Return the value of `x` after `x.copy_(source)`."""
    return source.to(x.dtype).expand(x.shape).clone()


def new_empty_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], **options: object) -> Tensor:
    """Return zeros for memory that will be written to; a functional graph has no strides."""
    return x.new_zeros(size)
