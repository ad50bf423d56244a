"""ONNX operators on values that do not depend on the images: shapes, axes and what is computed from them.

Elements may be symbolic sizes. Arrays of these hold Python objects, and the operators are those of Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch

from seewhy_export.sources.onnx_import.values import (
    KnownValue,
    NeedsTensor,
    NodeInfo,
    Unsupported,
    known_sizes,
    normalized_axes,
    object_array,
    static_sizes,
)

MAX_KNOWN_ELEMENTS = 2**24
"""Maximum number of elements of one known value. Shapes have a handful, tables of indices thousands."""

KnownOperator = Callable[..., Any]
"""(node, *inputs) -> one array or a list of arrays."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse integer results of more than 64 bits. They would wrap around in ONNX, and no size is that large."""

    def apply(*values: Any) -> Any:
        result = function(*values)
        if isinstance(result, int) and not -(2**63) <= result < 2**63:
            raise Unsupported("an integer of more than 64 bits")
        return result

    return apply


def _each(function: Callable[..., Any]) -> KnownOperator:
    """Return an operator that applies a function to each element after broadcasting."""
    function = _bounded(function)

    def apply(node: NodeInfo, *values: KnownValue) -> KnownValue:
        shape = np.broadcast_shapes(*(value.shape for value in values))
        _check_size(math.prod(shape))
        node.state.count_elements(shape, any(value.dtype == object for value in values))
        arrays = np.broadcast_arrays(*values)
        if any(array.dtype == object for array in arrays):
            result = np.empty(arrays[0].shape, dtype=object)
            for index in np.ndindex(result.shape):
                result[index] = function(*(array[index] for array in arrays))
            return result
        return np.asarray(np.frompyfunc(function, len(arrays), 1)(*(array.astype(object) for array in arrays)))

    return apply


def _typed(node: NodeInfo, result: KnownValue, *inputs: KnownValue) -> KnownValue:
    """Convert an array of plain numbers to the type that ONNX gives it. Keep arrays with symbolic sizes."""
    if result.dtype != object or any(isinstance(value, torch.SymInt | torch.SymFloat) for value in result.reshape(-1)):
        return result
    kinds = [value.dtype for value in inputs if value.dtype != object]
    plain = np.array(result.tolist())
    if plain.dtype.kind == "f":
        return plain.astype(np.float32)
    return plain.astype(kinds[0]) if plain.dtype.kind == "i" and kinds and kinds[0].kind in "iu" else plain


def _divide(a: Any, b: Any) -> Any:
    """Divide as ONNX does: integers toward zero."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b if b else math.nan
    if b == 0:
        raise Unsupported("a division by zero")
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return a // b  # sizes are not negative
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _cast_to(to: int) -> Callable[[Any], Any]:
    """Return the conversion to one of TensorProto's data types."""
    if to in (1, 10, 11, 16):
        return lambda value: torch.sym_float(value)
    if to == 9:
        return lambda value: bool(value)
    if to in (2, 3, 4, 5, 6, 7, 12, 13):
        return lambda value: torch.sym_int(value)
    raise Unsupported(f"data type {to}")


def _reduced(function: Callable[[Any, Any], Any]) -> KnownOperator:
    """Return an operator that reduces axes with a function of two elements."""
    function = _bounded(function)

    def apply(node: NodeInfo, x: KnownValue, axes: KnownValue | None = None) -> KnownValue:
        chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
        if not chosen and node.get("noop_with_empty_axes", 0):
            return x
        node.state.count_elements(x.shape, x.dtype == object)
        listed = normalized_axes(x.ndim, chosen) if chosen else list(range(x.ndim))
        moved = np.moveaxis(x.astype(object), listed, range(len(listed)))
        flat = moved.reshape(-1, *moved.shape[len(listed) :])
        result = np.asarray(reduce(lambda a, b: np.frompyfunc(function, 2, 1)(a, b), list(flat)), dtype=object)
        return np.expand_dims(result, tuple(sorted(listed))) if node.get("keepdims", 1) else result

    return apply


def _slice(node: NodeInfo, x: KnownValue, *bounds: KnownValue | None) -> KnownValue:
    starts, ends, axes, steps = slice_bounds(node, x.ndim, bounds)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # ONNX uses a negative end for "before the first element"; Python needs None.
        index[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(index)]


Bounds = tuple[list[Any], list[Any], list[int], list[int]]


def slice_bounds(node: NodeInfo, rank: int, bounds: tuple[KnownValue | None, ...]) -> Bounds:
    """Return starts, ends, axes and steps of a Slice: attributes before opset 10, inputs from then on."""
    if node.opset < 10:
        starts, ends = list(node.get("starts", ())), list(node.get("ends", ()))
        axes = list(node.get("axes") or range(len(starts)))
        return starts, ends, normalized_axes(rank, axes), [1] * len(starts)
    given = [*bounds, None, None, None, None][:4]
    starts, ends = known_sizes(given[0], "start"), known_sizes(given[1], "end")
    axes = list(range(len(starts))) if given[2] is None else static_sizes(given[2], "axes")
    steps = [1] * len(starts) if given[3] is None else static_sizes(given[3], "step")
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Unsupported("bounds of different lengths, or a step of zero")
    return starts, ends, normalized_axes(rank, axes), steps


def _reshape(node: NodeInfo, x: KnownValue, shape: KnownValue) -> KnownValue:
    target = static_sizes(shape, "shape")
    copied = not node.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and copied else size for i, size in enumerate(target)])


def _expand(node: NodeInfo, x: KnownValue, shape: KnownValue) -> KnownValue:
    target = np.broadcast_shapes(x.shape, tuple(static_sizes(shape, "shape")))
    _check_size(math.prod(target))
    return np.broadcast_to(x, target)


def _tile(node: NodeInfo, x: KnownValue, repeats: KnownValue) -> KnownValue:
    times = static_sizes(repeats, "repeats")
    _check_size(x.size * math.prod(times))
    return np.tile(x, times)


def _range(node: NodeInfo, start: KnownValue, limit: KnownValue, delta: KnownValue) -> KnownValue:
    first, last, step = (value.item() for value in (start, limit, delta))
    if any(isinstance(value, torch.SymInt) for value in (first, last, step)):
        raise NeedsTensor("its limit depends on the number of images")
    if not step:
        raise Unsupported("a step of zero")
    _check_size(math.ceil((last - first) / step))
    return np.arange(first, last, step, dtype=start.dtype if start.dtype != object else np.int64)


def _check_size(count: int) -> None:
    """Refuse known values with too many elements."""
    if count > MAX_KNOWN_ELEMENTS:
        raise Unsupported(f"{count} elements")


def _squeeze(node: NodeInfo, x: KnownValue, axes: KnownValue | None = None) -> KnownValue:
    chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
    return np.squeeze(x, None if chosen is None else tuple(normalized_axes(x.ndim, chosen)))


def _unsqueeze(node: NodeInfo, x: KnownValue, axes: KnownValue | None = None) -> KnownValue:
    chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
    return np.expand_dims(x, tuple(normalized_axes(x.ndim + len(chosen), chosen)))


def _gather(node: NodeInfo, x: KnownValue, indices: KnownValue) -> KnownValue:
    axis = node.get("axis", 0)
    normalized_axes(x.ndim, [axis])
    _check_size(x.size // max(x.shape[axis], 1) * indices.size)
    index = np.array(static_sizes(indices, "indices"), dtype=np.int64).reshape(indices.shape)
    if index.size and not (-x.shape[axis] <= index.min() and index.max() < x.shape[axis]):
        raise Unsupported("an index past the end")
    return np.take(x, index, axis)


def split_sizes(node: NodeInfo, size: int) -> list[int]:
    """Return the sizes into which a Split without sizes divides `size`. The last may be smaller."""
    count = node.get("num_outputs", node.outputs)
    if not 0 < count <= max(size, 1):
        raise Unsupported(f"{count} parts of {size} elements")
    length = -(-size // count)
    return [min(length, size - i * length) for i in range(count)]


def _concat(node: NodeInfo, *values: KnownValue) -> KnownValue:
    _check_size(sum(value.size for value in values))
    return np.concatenate(values, normalized_axes(values[0].ndim, [node.get("axis", 0)])[0])


def _split(node: NodeInfo, x: KnownValue, split: KnownValue | None = None) -> list[KnownValue]:
    axis = node.get("axis", 0)
    lengths = node.get("split") if split is None else static_sizes(split, "sizes")
    if lengths is None:
        lengths = split_sizes(node, x.shape[axis])
    return list(np.split(x, np.cumsum(lengths)[:-1], axis))


def _dequantize(node: NodeInfo, x: KnownValue, scale: KnownValue, zero: KnownValue | None = None) -> KnownValue:
    if node.get("block_size", 0):
        raise Unsupported("blocks")
    shape = [1] * x.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[node.get("axis", 1)] = scale.size
    shift = np.zeros(1) if zero is None else zero.astype(np.float64)
    by = scale.astype(np.float64).reshape(shape if scale.size > 1 else ())
    _check_size(math.prod(np.broadcast_shapes(x.shape, by.shape, shape if shift.size > 1 else ())))
    return ((x.astype(np.float64) - shift.reshape(shape if shift.size > 1 else ())) * by).astype(np.float32)


KNOWN_OPERATORS: dict[str, KnownOperator] = {
    "Abs": _each(abs),
    "Add": _each(operator.add),
    "And": _each(lambda a, b: bool(a and b)),
    "Cast": lambda node, x: _each(_cast_to(node.get("to")))(node, x),
    "Ceil": _each(math.ceil),
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Div": _each(_divide),
    "Equal": _each(lambda a, b: bool(a == b)),
    "Expand": _expand,
    "Floor": _each(math.floor),
    "Gather": _gather,
    "Greater": _each(lambda a, b: bool(a > b)),
    "GreaterOrEqual": _each(lambda a, b: bool(a >= b)),
    "Identity": lambda node, x: x,
    "Less": _each(lambda a, b: bool(a < b)),
    "LessOrEqual": _each(lambda a, b: bool(a <= b)),
    "Max": lambda node, *values: reduce(lambda a, b: _each(torch.sym_max)(node, a, b), values),
    "Min": lambda node, *values: reduce(lambda a, b: _each(torch.sym_min)(node, a, b), values),
    "Mod": _each(operator.mod),
    "Mul": _each(operator.mul),
    "Neg": _each(operator.neg),
    "Not": _each(operator.not_),
    "Or": _each(lambda a, b: bool(a or b)),
    "Range": _range,
    "ReduceMax": _reduced(torch.sym_max),
    "ReduceMin": _reduced(torch.sym_min),
    "ReduceProd": _reduced(operator.mul),
    "ReduceSum": _reduced(operator.add),
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _each(math.sqrt),
    "Squeeze": _squeeze,
    "Sub": _each(operator.sub),
    "Tile": _tile,
    "Transpose": lambda node, x: np.transpose(x, node.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _each(lambda condition, a, b: a if condition else b),
}


def apply_known(node: NodeInfo, values: list[KnownValue | None]) -> list[KnownValue]:
    """Apply one of `KNOWN_OPERATORS`, and return its results in the types that ONNX defines."""
    result = KNOWN_OPERATORS[node.operation](node, *values)
    given = [value for value in values if value is not None]
    # Indexing one element of an object array returns the object instead of an array.
    listed = result if isinstance(result, list) else [result]
    results = [value if isinstance(value, np.ndarray) else object_array(value) for value in listed]
    for array in results:
        _check_size(array.size)
    return [_typed(node, array, *given) for array in results]
