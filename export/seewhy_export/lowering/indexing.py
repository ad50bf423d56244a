"""Sums of values at equal indices, as in the gradient of advanced indexing and of nearest-neighbour resizing.

PyTorch's converter writes such a sum as ScatterND with the reduction `add`. onnxruntime runs that in several threads
without a lock, so values at equal indices get lost (https://github.com/microsoft/onnxruntime/issues/18048).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Largest number of elements of a selection matrix. Beyond it, adding the values one by one takes less memory.
_LARGEST_MATRIX = 1 << 20


def index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """Add values at indices, as `aten.index_put` does.

    Returns:
        The sum, of the shape and dtype of `x`. NotImplemented, so that the operator stays, if values replace others, or
        if masks select the positions; the writer refuses a sum at masked positions.
    """
    found = {d: index for d, index in enumerate(indices) if index is not None}
    if not accumulate or any(index.dtype in (torch.bool, torch.uint8) for index in found.values()):
        return NotImplemented
    dimensions = list(found)
    # The converter knows no remainder by a size that is free, as the batch's is.
    selected = [torch.where(index < 0, index + x.shape[d], index) for d, index in found.items()]
    places = torch.broadcast_shapes(*(index.shape for index in selected))
    others = [d for d in range(x.dim()) if d not in found]
    # The places lie where the indices are if those are neighbours, otherwise in front.
    first = dimensions[0] if dimensions == list(range(dimensions[0], dimensions[-1] + 1)) else 0
    rest = [x.shape[d] for d in others]
    values = values.expand([*rest[:first], *places, *rest[first:]])
    values = values.movedim(list(range(first, first + len(places))), list(range(len(places))))
    moved = x.permute(*dimensions, *others)
    axes = [_only_axis(index, len(places)) for index in selected]
    matrix_sizes = [x.shape[d] * index.numel() for d, index in zip(dimensions, selected, strict=True)]
    fits = all(isinstance(size, int) and size <= _LARGEST_MATRIX for size in matrix_sizes)
    if sorted(axes) == list(range(len(places))) and fits:
        for d, axis, index in zip(dimensions, axes, selected, strict=True):
            matrix = (torch.arange(x.shape[d], device=x.device)[:, None] == index.flatten()).to(values.dtype)
            values = (values.movedim(axis, -1) @ matrix.t()).movedim(-1, axis)
        total = moved + values.permute(*axes, *range(len(places), values.dim()))
    else:
        flat = selected[0]
        for d, index in zip(dimensions[1:], selected[1:], strict=True):
            flat = flat * x.shape[d] + index
        flat = flat.expand(places).reshape(-1, 1)
        # onnxruntime runs ScatterElements in one thread.
        rows = values.reshape(flat.shape[0], -1)
        target = moved.reshape(-1, rows.shape[1])
        total = target.scatter_add(0, flat.expand(rows.shape), rows).reshape(moved.shape)
    return total.permute([(dimensions + others).index(d) for d in range(x.dim())])


def _only_axis(index: Tensor, dimensions: int) -> int:
    """Return the axis of the broadcast indices along which an index varies, or -1 if there is not exactly one."""
    axes = [axis + dimensions - index.dim() for axis, size in enumerate(index.shape) if size != 1]
    return axes[0] if len(axes) == 1 else -1
