"""ONNX operators that move elements, as PyTorch functions for any batch size.

Many files fix the batch size: a Reshape to (1, 512), a class token expanded to (1, 1, 768). The operators here know the
shape of each value for the file's own batch size. The dimension that differs from it now is the batch, and the
operators write the current batch size there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.resize import resize, upsample
from seewhy_export.sources.onnx_import.shape_arithmetic import MAX_KNOWN_ELEMENTS, slice_bounds, split_sizes
from seewhy_export.sources.onnx_import.values import (
    KnownValue,
    NodeInfo,
    Operator,
    Size,
    Unsupported,
    Value,
    as_tensor,
    known_sizes,
    normalized_axes,
    object_array,
    static_sizes,
)

_PAD_MODES = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate", b"wrap": "circular"}


def _batch_axis(now: Any, then: tuple[int, ...]) -> int | None:
    """Return the dimension that another batch size has changed, or None if no dimension has changed."""
    if len(now) != len(then):
        raise Unsupported("a number of dimensions that depends on the number of images")
    changed = [i for i, size in enumerate(now) if isinstance(size, torch.SymInt) or size != then[i]]
    if len(changed) > 1:
        raise Unsupported("several dimensions that depend on the number of images")
    return changed[0] if changed else None


def _is_fixed(node: NodeInfo, target: list[Size]) -> bool:
    """Return True if a target shape is written in the file, and not computed from the shape of the images."""
    return target == node.file_target_shape and not any(isinstance(size, torch.SymInt) for size in target)


def _reshape(node: NodeInfo, x: Tensor, shape: Value | None = None) -> Tensor:
    target = list(node.get("shape")) if shape is None else known_sizes(shape, "shape")
    if node.file_output_shape is None:
        node.file_target_shape = target
    elif _is_fixed(node, target):
        target, node.outer_factor = _with_current_batch(node, x)
    else:
        node.outer_factor = 1
    if not node.get("allowzero", 0):
        target = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _with_current_batch(node: NodeInfo, x: Tensor) -> tuple[list[Size], int]:
    """Return the file's output shape with the batch size of `x`, and the factor in front of the batch size.

    A Reshape keeps the order of the elements, and therefore the number of elements in front of the batch. If the
    file's batch size is 1, several dimensions may be the batch. The order of preference is: a dimension of its own,
    the front of a dimension that is not the last (which holds features), the back of a dimension.
    """
    then, result, batch = node.file_input_shapes[0], list(node.file_output_shape or ()), node.state.batch
    axis = None if then is None else _batch_axis(x.shape, then)
    if then is None or axis is None:
        return list(result), 1
    before = math.prod(then[:axis]) * node.outer_factor
    ranked = []
    for i, size in enumerate(result):
        outer, rest = divmod(before, math.prod(result[:i]) or 1)
        if rest or not size or size % (outer * batch):
            continue
        inner = size // (outer * batch)
        front = outer == 1 and (before == 1 or i + 1 < len(result))
        ranked.append((not (outer == 1 and inner == 1), not front, inner != 1, i, outer))
    if not ranked:
        raise Unsupported(f"a shape {tuple(result)} that fits {batch} images only")
    *_, place, outer = min(ranked)
    return [*result[:place], -1, *result[place + 1 :]], outer


def _expand(node: NodeInfo, x: Value, shape: Value) -> Tensor:
    x, target = as_tensor(x, node), known_sizes(shape, "shape")
    if node.file_output_shape is None:
        node.file_target_shape = target
    elif _is_fixed(node, target):
        then, target = node.file_input_shapes[0], list(node.file_output_shape)
        axis = None if then is None else _batch_axis(x.shape, then)
        if axis is not None:
            target[axis - x.dim()] = x.shape[axis]
    # A dimension of 1 is a wildcard in both shapes in ONNX, but only in the shape of the value in PyTorch.
    missing = max(0, x.dim() - len(target))
    target = [1] * missing + target
    own = [1] * (len(target) - x.dim()) + list(x.shape)
    return x.expand([b if isinstance(s, int) and s == 1 else s for s, b in zip(target, own, strict=True)])


def _concat(node: NodeInfo, *values: Value) -> Tensor:
    tensors = [as_tensor(value, node) for value in values]
    (axis,) = normalized_axes(tensors[0].dim(), [node.get("axis", 1)])
    for i, then in enumerate(node.file_input_shapes):
        batch = None if then is None else _batch_axis(tensors[i].shape, then)
        if batch is not None and batch != axis:
            # Values that do not depend on the images still have the file's batch size; repeat them for each image.
            size = tensors[i].shape[batch]
            tensors = [
                _repeated(node, value, batch, size, node.file_input_shapes[j]) for j, value in enumerate(tensors)
            ]
            break
    return torch.cat(tensors, axis)


def _repeated(node: NodeInfo, x: Tensor, axis: int, size: Size, then: tuple[int, ...] | None) -> Tensor:
    if then is None or _batch_axis(x.shape, then) is not None:
        return x
    if x.shape[axis] != 1:
        raise Unsupported(f"a constant that fits {node.state.batch} images only")
    return x.expand([size if i == axis else -1 for i in range(x.dim())])


def _flatten(node: NodeInfo, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(node: NodeInfo, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or list(reversed(range(x.dim()))))


def _squeeze(node: NodeInfo, x: Tensor, axes: Value | None = None) -> Tensor:
    chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
    if chosen is None:
        chosen = [i for i, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    return x.squeeze(tuple(normalized_axes(x.dim(), chosen)))


def _unsqueeze(node: NodeInfo, x: Tensor, axes: Value | None = None) -> Tensor:
    chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
    for axis in sorted(normalized_axes(x.dim() + len(chosen), chosen)):
        x = x.unsqueeze(axis)
    return x


def _split(node: NodeInfo, x: Tensor, split: Value | None = None) -> tuple[Tensor, ...]:
    (axis,) = normalized_axes(x.dim(), [node.get("axis", 0)])
    lengths = node.get("split") if split is None else static_sizes(split, "sizes")
    if lengths is None:
        lengths = split_sizes(node, int(x.shape[axis]))
    return torch.split(x, lengths, axis)


def _slice(node: NodeInfo, x: Tensor, *bounds: KnownValue | None) -> Tensor:
    for start, end, axis, step in zip(*slice_bounds(node, x.dim(), bounds), strict=True):
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


def _gather(node: NodeInfo, x: Value, indices: Value) -> Tensor:
    x = as_tensor(x, node)
    (axis,) = normalized_axes(x.dim(), [node.get("axis", 0)])
    if not isinstance(indices, np.ndarray):
        flat = x.index_select(axis, indices.reshape(-1))
        return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    then = node.file_input_shapes[0] if node.file_input_shapes else None
    if then is not None and len(then) == 1 == node.state.batch and indices.ndim and indices.shape[0] == 1:
        if _batch_axis(x.shape, then) == 0:
            return _gather_within_images(node, x, indices)
    chosen = static_sizes(indices, "indices")
    if indices.ndim == 0:
        return x.select(axis, chosen[0])
    size = int(x.shape[axis])
    counted = [index % size for index in chosen]
    if indices.ndim == 1 and counted == list(range(counted[0], counted[0] + len(counted))):
        return x.narrow(axis, counted[0], len(counted))
    flat = x.index_select(axis, torch.tensor(counted))
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_within_images(node: NodeInfo, x: Tensor, indices: KnownValue) -> Tensor:
    """Gather elements of each flattened image. PyTorch exports a view of a tensor in another layout like this."""
    image = (node.file_input_shapes[0] or (0,))[0]
    chosen = [index % image for index in static_sizes(indices, "indices")]
    return x.reshape(-1, image).index_select(1, torch.tensor(chosen)).reshape(-1, *indices.shape[1:])


def _range(node: NodeInfo, start: Value, limit: Value, delta: Value) -> Tensor:
    (first,), (last,), (step,) = (known_sizes(value, "bounds") for value in (start, limit, delta))
    return torch.arange(first, last, step)


def _tile(node: NodeInfo, x: Value, repeats: Value) -> Tensor:
    return as_tensor(x, node).repeat(known_sizes(repeats, "repeats"))


def _pad(
    node: NodeInfo, x: Tensor, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Tensor:
    mode = node.get("mode", b"constant")
    if mode not in _PAD_MODES:
        raise Unsupported(f"mode {mode.decode(errors='replace')!r}")
    given = list(node.get("pads")) if pads is None else static_sizes(pads, "pads")
    chosen = list(range(x.dim())) if axes is None else normalized_axes(x.dim(), static_sizes(axes, "axes"))
    both = [(0, 0)] * x.dim()
    for i, axis in enumerate(chosen):
        both[axis] = (given[i], given[i + len(chosen)])
    first = next((i for i, pair in enumerate(both) if pair != (0, 0)), None)
    if first is None:
        return x
    if mode == b"constant":
        fill = node.get("value", 0.0)
        if value is not None:
            fill = float(value.item()) if math.prod(value.shape) else 0.0
        return F.pad(x, [size for pair in reversed(both[first:]) for size in pair], value=fill)
    if first < 2:
        raise Unsupported(f"mode {mode.decode()!r} over images or channels")
    return F.pad(x, [size for pair in reversed(both[2:]) for size in pair], mode=_PAD_MODES[mode])


def _shape(node: NodeInfo, x: Value) -> KnownValue:
    return object_array(list(x.shape)[node.get("start", 0) : node.get("end")])


def _constant_of_shape(node: NodeInfo, shape: Value) -> Value:
    target, fill = known_sizes(shape, "shape"), node.get("value")
    fill = np.zeros(1, np.float32) if fill is None else fill
    if fill.size != 1:
        raise Unsupported("a fill of several values")
    number = fill.reshape(-1)[0].item()
    if all(isinstance(size, int) for size in target) and 0 <= math.prod(target) <= MAX_KNOWN_ELEMENTS:
        return np.full(target, number, fill.dtype)
    dtype = node.state.dtype if fill.dtype.kind == "f" else torch.from_numpy(fill).dtype
    return torch.full(target, number, dtype=dtype)


def _depth_to_space(node: NodeInfo, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    if node.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    blocks = x.reshape(n, block, block, c // block**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(node: NodeInfo, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block, block, w // block, block)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


RESHAPING: dict[str, Operator] = {
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
    "Size": lambda node, x: object_array(math.prod(x.shape)),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": upsample,
}
"""ONNX name -> operator. The results of Shape, Size and, where possible, ConstantOfShape are known values."""
