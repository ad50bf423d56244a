"""ONNX's operators on values that are known without the images: shapes, axes and what is computed of them.

Elements may be symbolic sizes, so arrays of these are of Python objects, and each operation is Python's own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch

from seewhy_export.sources.onnx_import.values import At, Known, NeedsTensor, Unsupported, axes_of, known, sizes, static

MOST = 2**24
"""Elements of one known value; shapes have a handful, tables of indices thousands."""

KnownOperator = Callable[..., Any]
"""(at, *inputs) -> an array, or a list of them."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Python's integers have no end. Where ONNX's wrap around there is no size any more, and so it is refused."""

    def apply(*values: Any) -> Any:
        result = function(*values)
        if isinstance(result, int) and not -(2**63) <= result < 2**63:
            raise Unsupported("a whole number of more than 64 bits")
        return result

    return apply


def _each(function: Callable[..., Any]) -> KnownOperator:
    """Apply to each element, after broadcasting."""
    function = _bounded(function)

    def apply(at: At, *values: Known) -> Known:
        shape = np.broadcast_shapes(*(value.shape for value in values))
        _check_size(math.prod(shape))
        at.run.count(shape, any(value.dtype == object for value in values))
        arrays = np.broadcast_arrays(*values)
        if any(array.dtype == object for array in arrays):
            result = np.empty(arrays[0].shape, dtype=object)
            for index in np.ndindex(result.shape):
                result[index] = function(*(array[index] for array in arrays))
            return result
        return np.asarray(np.frompyfunc(function, len(arrays), 1)(*(array.astype(object) for array in arrays)))

    return apply


def _typed(at: At, result: Known, *inputs: Known) -> Known:
    """An array of plain numbers in the type that ONNX gives it; one with symbolic sizes stays as it is."""
    if result.dtype != object or any(isinstance(value, torch.SymInt | torch.SymFloat) for value in result.reshape(-1)):
        return result
    kinds = [value.dtype for value in inputs if value.dtype != object]
    plain = np.array(result.tolist())
    if plain.dtype.kind == "f":
        return plain.astype(np.float32)
    return plain.astype(kinds[0]) if plain.dtype.kind == "i" and kinds and kinds[0].kind in "iu" else plain


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a / b if b else math.nan
    if b == 0:
        raise Unsupported("a division by zero")
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return a // b  # sizes are not negative
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _cast_to(to: int) -> Callable[[Any], Any]:
    if to in (1, 10, 11, 16):
        return lambda value: torch.sym_float(value)
    if to == 9:
        return lambda value: bool(value)
    if to in (2, 3, 4, 5, 6, 7, 12, 13):
        return lambda value: torch.sym_int(value)
    raise Unsupported(f"data type {to}")


def _reduced(function: Callable[[Any, Any], Any]) -> KnownOperator:
    function = _bounded(function)

    def apply(at: At, x: Known, axes: Known | None = None) -> Known:
        chosen = at.get("axes") if axes is None else static(axes, "axes")
        if not chosen and at.get("noop_with_empty_axes", 0):
            return x
        at.run.count(x.shape, x.dtype == object)
        listed = axes_of(x.ndim, chosen) if chosen else list(range(x.ndim))
        moved = np.moveaxis(x.astype(object), listed, range(len(listed)))
        flat = moved.reshape(-1, *moved.shape[len(listed) :])
        result = np.asarray(reduce(lambda a, b: np.frompyfunc(function, 2, 1)(a, b), list(flat)), dtype=object)
        return np.expand_dims(result, tuple(sorted(listed))) if at.get("keepdims", 1) else result

    return apply


def _slice(at: At, x: Known, *bounds: Known | None) -> Known:
    starts, ends, axes, steps = slice_bounds(at, x.ndim, bounds)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Counting down to before the first element has no end in Python.
        index[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(index)]


Bounds = tuple[list[Any], list[Any], list[int], list[int]]


def slice_bounds(at: At, rank: int, bounds: tuple[Known | None, ...]) -> Bounds:
    """Starts, ends, axes and steps of a Slice, from its attributes before opset 10 and from its inputs since then."""
    if at.opset < 10:
        starts, ends = list(at.get("starts", ())), list(at.get("ends", ()))
        axes = list(at.get("axes") or range(len(starts)))
        return starts, ends, axes_of(rank, axes), [1] * len(starts)
    given = [*bounds, None, None, None, None][:4]
    starts, ends = sizes(given[0], "start"), sizes(given[1], "end")
    axes = list(range(len(starts))) if given[2] is None else static(given[2], "axes")
    steps = [1] * len(starts) if given[3] is None else static(given[3], "step")
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Unsupported("bounds that do not belong together")
    return starts, ends, axes_of(rank, axes), steps


def _reshape(at: At, x: Known, shape: Known) -> Known:
    wanted = static(shape, "shape")
    copied = not at.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and copied else size for i, size in enumerate(wanted)])


def _expand(at: At, x: Known, shape: Known) -> Known:
    wanted = np.broadcast_shapes(x.shape, tuple(static(shape, "shape")))
    _check_size(math.prod(wanted))
    return np.broadcast_to(x, wanted)


def _tile(at: At, x: Known, repeats: Known) -> Known:
    times = static(repeats, "repeats")
    _check_size(x.size * math.prod(times))
    return np.tile(x, times)


def _range(at: At, start: Known, limit: Known, delta: Known) -> Known:
    first, last, step = (value.item() for value in (start, limit, delta))
    if any(isinstance(value, torch.SymInt) for value in (first, last, step)):
        raise NeedsTensor("its limit depends on the number of images")
    if not step:
        raise Unsupported("a step of zero")
    _check_size(math.ceil((last - first) / step))
    return np.arange(first, last, step, dtype=start.dtype if start.dtype != object else np.int64)


def _check_size(count: int) -> None:
    if count > MOST:
        raise Unsupported(f"{count} elements")


def _squeeze(at: At, x: Known, axes: Known | None = None) -> Known:
    chosen = at.get("axes") if axes is None else static(axes, "axes")
    return np.squeeze(x, None if chosen is None else tuple(axes_of(x.ndim, chosen)))


def _unsqueeze(at: At, x: Known, axes: Known | None = None) -> Known:
    chosen = at.get("axes") if axes is None else static(axes, "axes")
    return np.expand_dims(x, tuple(axes_of(x.ndim + len(chosen), chosen)))


def _gather(at: At, x: Known, indices: Known) -> Known:
    axis = at.get("axis", 0)
    axes_of(x.ndim, [axis])
    _check_size(x.size // max(x.shape[axis], 1) * indices.size)
    index = np.array(static(indices, "indices"), dtype=np.int64).reshape(indices.shape)
    if index.size and not (-x.shape[axis] <= index.min() and index.max() < x.shape[axis]):
        raise Unsupported("an index past the end")
    return np.take(x, index, axis)


def equal_parts(at: At, size: int) -> list[int]:
    """Sizes of the parts that a Split makes of `size` where it does not say them; the last may be smaller."""
    count = at.get("num_outputs", at.outputs)
    if not 0 < count <= max(size, 1):
        raise Unsupported(f"{count} parts of {size} elements")
    part = -(-size // count)
    return [min(part, size - i * part) for i in range(count)]


def _concat(at: At, *values: Known) -> Known:
    _check_size(sum(value.size for value in values))
    return np.concatenate(values, axes_of(values[0].ndim, [at.get("axis", 0)])[0])


def _split(at: At, x: Known, split: Known | None = None) -> list[Known]:
    axis = at.get("axis", 0)
    parts = at.get("split") if split is None else static(split, "sizes")
    if parts is None:
        parts = equal_parts(at, x.shape[axis])
    return list(np.split(x, np.cumsum(parts)[:-1], axis))


def _dequantize(at: At, x: Known, scale: Known, zero: Known | None = None) -> Known:
    if at.get("block_size", 0):
        raise Unsupported("blocks")
    shape = [1] * x.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[at.get("axis", 1)] = scale.size
    shift = np.zeros(1) if zero is None else zero.astype(np.float64)
    by = scale.astype(np.float64).reshape(shape if scale.size > 1 else ())
    _check_size(math.prod(np.broadcast_shapes(x.shape, by.shape, shape if shift.size > 1 else ())))
    return ((x.astype(np.float64) - shift.reshape(shape if shift.size > 1 else ())) * by).astype(np.float32)


KNOWN: dict[str, KnownOperator] = {
    "Abs": _each(abs),
    "Add": _each(operator.add),
    "And": _each(lambda a, b: bool(a and b)),
    "Cast": lambda at, x: _each(_cast_to(at.get("to")))(at, x),
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
    "Identity": lambda at, x: x,
    "Less": _each(lambda a, b: bool(a < b)),
    "LessOrEqual": _each(lambda a, b: bool(a <= b)),
    "Max": lambda at, *values: reduce(lambda a, b: _each(torch.sym_max)(at, a, b), values),
    "Min": lambda at, *values: reduce(lambda a, b: _each(torch.sym_min)(at, a, b), values),
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
    "Transpose": lambda at, x: np.transpose(x, at.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _each(lambda condition, a, b: a if condition else b),
}


def _listed(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def run_known(at: At, values: list[Known | None]) -> list[Known]:
    """Run one of `KNOWN` and give its results the types that ONNX says."""
    result = KNOWN[at.operation](at, *values)
    given = [value for value in values if value is not None]
    # Indexing an array of objects down to one gives the object itself.
    results = [value if isinstance(value, np.ndarray) else known(value) for value in _listed(result)]
    for array in results:
        _check_size(array.size)
    return [_typed(at, array, *given) for array in results]
