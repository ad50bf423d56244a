"""ONNX's operators that move elements, in PyTorch's terms, for any number of images.

Many files fix the batch: a Reshape to (1, 512), a class token expanded to (1, 1, 768). Each value's shape for the
file's own batch is known, and so is the dimension that differs now, so the batch is put in its place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.resize import resize, upsample
from seewhy_export.sources.onnx_import.shape_arithmetic import MOST, equal_parts, slice_bounds
from seewhy_export.sources.onnx_import.values import (
    At,
    Known,
    Operator,
    Size,
    Unsupported,
    Value,
    axes_of,
    known,
    sizes,
    static,
    tensor,
)

_PAD_MODES = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate", b"wrap": "circular"}


def _batch_axis(now: Any, then: tuple[int, ...]) -> int | None:
    """The dimension that another batch has changed; None where nothing has changed."""
    if len(now) != len(then):
        raise Unsupported("a number of dimensions that depends on the number of images")
    changed = [i for i, size in enumerate(now) if isinstance(size, torch.SymInt) or size != then[i]]
    if len(changed) > 1:
        raise Unsupported("several dimensions that depend on the number of images")
    return changed[0] if changed else None


def _is_fixed(at: At, target: list[Size]) -> bool:
    """Whether a target shape is written in the file, rather than computed from the images' shape."""
    return target == at.file_target and not any(isinstance(size, torch.SymInt) for size in target)


def _reshape(at: At, x: Tensor, shape: Value | None = None) -> Tensor:
    target = list(at.get("shape")) if shape is None else sizes(shape, "shape")
    if at.file_output is None:
        at.file_target = target
    elif _is_fixed(at, target):
        target, at.outer = _rebatched(at, x)
    else:
        at.outer = 1
    if not at.get("allowzero", 0):
        target = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _rebatched(at: At, x: Tensor) -> tuple[list[Size], int]:
    """The file's output shape, with the batch of `x` where it comes to lie, and what is in front of it there.

    A Reshape keeps the order of elements, and so the number of those in front of the batch. Where the file's batch is
    one, several dimensions can be meant: a dimension of its own comes first, then the front of one that is not the
    last (which holds features), then the back of one.
    """
    then, result, batch = at.file_inputs[0], list(at.file_output or ()), at.run.batch
    axis = None if then is None else _batch_axis(x.shape, then)
    if then is None or axis is None:
        return list(result), 1
    before = math.prod(then[:axis]) * at.outer
    ranked = []
    for i, size in enumerate(result):
        outer, rest = divmod(before, math.prod(result[:i]) or 1)
        if rest or not size or size % (outer * batch):
            continue
        inner = size // (outer * batch)
        front = outer == 1 and (before == 1 or i + 1 < len(result))
        ranked.append((not (outer == 1 and inner == 1), not front, inner != 1, i, outer))
    if not ranked:
        raise Unsupported(f"a shape {tuple(result)} that is for {batch} images only")
    *_, place, outer = min(ranked)
    return [*result[:place], -1, *result[place + 1 :]], outer


def _expand(at: At, x: Value, shape: Value) -> Tensor:
    x, target = tensor(x, at), sizes(shape, "shape")
    if at.file_output is None:
        at.file_target = target
    elif _is_fixed(at, target):
        then, target = at.file_inputs[0], list(at.file_output)
        axis = None if then is None else _batch_axis(x.shape, then)
        if axis is not None:
            target[axis - x.dim()] = x.shape[axis]
    # Dimensions of one are ONNX's wildcard on either side, and PyTorch's in the value alone.
    missing = max(0, x.dim() - len(target))
    target = [1] * missing + target
    own = [1] * (len(target) - x.dim()) + list(x.shape)
    return x.expand([b if isinstance(s, int) and s == 1 else s for s, b in zip(target, own, strict=True)])


def _concat(at: At, *values: Value) -> Tensor:
    tensors = [tensor(value, at) for value in values]
    (axis,) = axes_of(tensors[0].dim(), [at.get("axis", 1)])
    for i, then in enumerate(at.file_inputs):
        batch = None if then is None else _batch_axis(tensors[i].shape, then)
        if batch is not None and batch != axis:
            # What does not depend on the images has the file's batch, and one of these is like another.
            size = tensors[i].shape[batch]
            tensors = [_repeated(at, value, batch, size, at.file_inputs[j]) for j, value in enumerate(tensors)]
            break
    return torch.cat(tensors, axis)


def _repeated(at: At, x: Tensor, axis: int, size: Size, then: tuple[int, ...] | None) -> Tensor:
    if then is None or _batch_axis(x.shape, then) is not None:
        return x
    if x.shape[axis] != 1:
        raise Unsupported(f"a constant that is for {at.run.batch} images only")
    return x.expand([size if i == axis else -1 for i in range(x.dim())])


def _flatten(at: At, x: Tensor) -> Tensor:
    axis = at.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(at: At, x: Tensor) -> Tensor:
    return x.permute(at.get("perm") or list(reversed(range(x.dim()))))


def _squeeze(at: At, x: Tensor, axes: Value | None = None) -> Tensor:
    chosen = at.get("axes") if axes is None else static(axes, "axes")
    if chosen is None:
        chosen = [i for i, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    return x.squeeze(tuple(axes_of(x.dim(), chosen)))


def _unsqueeze(at: At, x: Tensor, axes: Value | None = None) -> Tensor:
    chosen = at.get("axes") if axes is None else static(axes, "axes")
    for axis in sorted(axes_of(x.dim() + len(chosen), chosen)):
        x = x.unsqueeze(axis)
    return x


def _split(at: At, x: Tensor, split: Value | None = None) -> tuple[Tensor, ...]:
    (axis,) = axes_of(x.dim(), [at.get("axis", 0)])
    parts = at.get("split") if split is None else static(split, "sizes")
    if parts is None:
        parts = equal_parts(at, int(x.shape[axis]))
    return torch.split(x, parts, axis)


def _slice(at: At, x: Tensor, *bounds: Known | None) -> Tensor:
    for start, end, axis, step in zip(*slice_bounds(at, x.dim(), bounds), strict=True):
        before = [slice(None)] * axis
        if step > 0:
            x = x[(*before, slice(start, end, step))]
            continue
        size = int(x.shape[axis])
        kept = range(size)[slice(start, None if end < -size else end, step)]
        if step != -1:
            raise Unsupported(f"a step of {step}")
        x = x[(*before, slice(kept[-1], kept[0] + 1) if kept else slice(0, 0))].flip(axis)
    return x


def _gather(at: At, x: Value, indices: Value) -> Tensor:
    x = tensor(x, at)
    (axis,) = axes_of(x.dim(), [at.get("axis", 0)])
    if not isinstance(indices, np.ndarray):
        flat = x.index_select(axis, indices.reshape(-1))
        return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    then = at.file_inputs[0] if at.file_inputs else None
    if then is not None and len(then) == 1 == at.run.batch and indices.ndim and indices.shape[0] == 1:
        if _batch_axis(x.shape, then) == 0:
            return _gather_within_images(at, x, indices)
    chosen = static(indices, "indices")
    if indices.ndim == 0:
        return x.select(axis, chosen[0])
    size = int(x.shape[axis])
    counted = [index % size for index in chosen]
    if indices.ndim == 1 and counted == list(range(counted[0], counted[0] + len(counted))):
        return x.narrow(axis, counted[0], len(counted))
    flat = x.index_select(axis, torch.tensor(counted))
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_within_images(at: At, x: Tensor, indices: Known) -> Tensor:
    """Elements of one image, flattened: what PyTorch writes where it looks at a tensor in another layout."""
    image = (at.file_inputs[0] or (0,))[0]
    chosen = [index % image for index in static(indices, "indices")]
    return x.reshape(-1, image).index_select(1, torch.tensor(chosen)).reshape(-1, *indices.shape[1:])


def _range(at: At, start: Value, limit: Value, delta: Value) -> Tensor:
    (first,), (last,), (step,) = (sizes(value, "bounds") for value in (start, limit, delta))
    return torch.arange(first, last, step)


def _tile(at: At, x: Value, repeats: Value) -> Tensor:
    return tensor(x, at).repeat(sizes(repeats, "repeats"))


def _pad(at: At, x: Tensor, pads: Value | None = None, value: Value | None = None, axes: Value | None = None) -> Tensor:
    mode = at.get("mode", b"constant")
    if mode not in _PAD_MODES:
        raise Unsupported(f"mode {mode.decode(errors='replace')!r}")
    given = list(at.get("pads")) if pads is None else static(pads, "pads")
    chosen = list(range(x.dim())) if axes is None else axes_of(x.dim(), static(axes, "axes"))
    both = [(0, 0)] * x.dim()
    for i, axis in enumerate(chosen):
        both[axis] = (given[i], given[i + len(chosen)])
    first = next((i for i, pair in enumerate(both) if pair != (0, 0)), None)
    if first is None:
        return x
    if mode == b"constant":
        fill = at.get("value", 0.0)
        if value is not None:
            fill = float(value.item()) if math.prod(value.shape) else 0.0
        return F.pad(x, [size for pair in reversed(both[first:]) for size in pair], value=fill)
    if first < 2:
        raise Unsupported(f"mode {mode.decode()!r} over images or channels")
    return F.pad(x, [size for pair in reversed(both[2:]) for size in pair], mode=_PAD_MODES[mode])


def _shape(at: At, x: Value) -> Known:
    return known(list(x.shape)[at.get("start", 0) : at.get("end")])


def _constant_of_shape(at: At, shape: Value) -> Value:
    target, fill = sizes(shape, "shape"), at.get("value")
    fill = np.zeros(1, np.float32) if fill is None else fill
    if fill.size != 1:
        raise Unsupported("a fill of several values")
    number = fill.reshape(-1)[0].item()
    if all(isinstance(size, int) for size in target) and 0 <= math.prod(target) <= MOST:
        return np.full(target, number, fill.dtype)
    dtype = at.run.dtype if fill.dtype.kind == "f" else torch.from_numpy(fill).dtype
    return torch.full(target, number, dtype=dtype)


def _depth_to_space(at: At, x: Tensor) -> Tensor:
    block = at.get("blocksize")
    if at.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(at: At, x: Tensor) -> Tensor:
    block = at.get("blocksize")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


SHAPES: dict[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": resize,
    "Shape": _shape,
    "Size": lambda at, x: known(math.prod(x.shape)),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": upsample,
}
"""Shape, Size and ConstantOfShape have known results."""
