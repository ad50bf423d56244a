"""Gradients of padding by replication and of windows that are views, and what is written into views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy_export.lowering.shape_helpers import pad


def replication_pad_backward(gradient: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    """What came back to the copies of an edge is added to the edge, along one dimension after the other."""
    for i in range(len(padding) // 2):
        dimension = gradient.dim() - 1 - i
        before, after = padding[2 * i : 2 * i + 2]
        size = x.shape[dimension]
        # Cut edges have a gradient of zero.
        grown = pad(gradient, [0] * (2 * i) + [max(0, -before), max(0, -after)])
        before, after = max(0, before), max(0, after)
        if before or after:
            first, middle, last = grown.split([before, size, after], dimension)
            gradient = _add_edges(first, middle, last, dimension)
        else:
            gradient = grown
    return gradient


def _add_edges(before: Tensor, middle: Tensor, after: Tensor, dimension: int) -> Tensor:
    """Add the sums of what lies before and after to the first and last element."""
    size = middle.shape[dimension]
    first, last = (part.sum(dimension, keepdim=True) for part in (before, after))
    if size == 1:
        return middle + first + last
    inside = first.new_zeros([*middle.shape[:dimension], size - 2, *middle.shape[dimension + 1 :]])
    return middle + torch.cat([first, inside, last], dimension)


def unfold_backward(gradient: Tensor, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    """Each window is added where it came from; the windows are the last dimension of `gradient`.

    Windows overlap at most ceil(size / step) deep. That many pieces of each, a step long, lie side by side.
    """
    dimension = dim % max(len(input_sizes), 1)
    wanted = input_sizes[dimension]
    moved = gradient.movedim(dimension, -2)
    count = moved.shape[-2]
    total: Tensor | None = None
    for start in range(0, size, step):
        piece = moved[..., start : start + step]
        beside = pad(piece, [0, step - piece.shape[-1]]).flatten(-2)
        placed = pad(beside, [start, wanted - start - count * step])
        total = placed if total is None else total + placed
    assert total is not None
    return total.movedim(-1, dimension)


def copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What `x` holds after `x.copy_(source)`."""
    return source.to(x.dtype).expand(x.shape).clone()


def new_empty_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], **options: object) -> Tensor:
    """Memory that will be written to; a graph of values has no strides."""
    return x.new_zeros(size)
