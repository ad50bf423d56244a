"""ONNX's operators on single elements, in PyTorch's terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.values import At, Operator, Unsupported, Value, operand, tensor

# TensorProto's data types that count as floating point, all of which become the run's dtype.
_FLOATS = {1, 10, 11, 16}
_INTEGERS = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda at, x: function(x)


def _binary(function: Callable[[Any, Any], Tensor]) -> Operator:
    """Two operands; a lone number stays one, since PyTorch differentiates x ** 2 better than x ** tensor(2)."""

    def apply(at: At, a: Value, b: Value) -> Tensor:
        if isinstance(a, Tensor):
            return function(a, operand(b, a, at))
        assert isinstance(b, Tensor)
        return function(tensor(a, at) if a.size > 1 or a.ndim > b.dim() else tensor(a.reshape(()), at), b)

    return apply


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda at, *values: reduce(function, [tensor(value, at) for value in values])


def _div(a: Tensor, b: Any) -> Tensor:
    floating = a.is_floating_point()
    return torch.div(a, b) if floating else torch.div(a, b, rounding_mode="trunc")


def _mod(at: At, a: Value, b: Value) -> Tensor:
    function = torch.fmod if at.get("fmod", 0) else torch.remainder
    return function(tensor(a, at), tensor(b, at))


def _where(at: At, condition: Value, a: Value, b: Value) -> Tensor:
    return torch.where(tensor(condition, at), tensor(a, at), tensor(b, at))


def _cast(at: At, x: Tensor) -> Tensor:
    to = at.get("to")
    if to in _FLOATS:
        return x if x.is_floating_point() else x.to(at.run.dtype)
    if to not in _INTEGERS:
        raise Unsupported(f"data type {to}")
    return x.to(_INTEGERS[to])


def _cast_like(at: At, x: Value, like: Value) -> Tensor:
    x, like = tensor(x, at), tensor(like, at)
    return x.to(at.run.dtype if like.is_floating_point() else like.dtype)


def _dropout(at: At, x: Tensor, ratio: Value | None = None, training: Value | None = None) -> Tensor:
    if training is not None and not (isinstance(training, np.ndarray) and not training.any()):
        raise Unsupported("training mode")
    return x


def _bound(value: Value | None, what: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise Unsupported(f"a {what} that is not one constant")
    bound = float(value.item())
    # Some exporters write the largest float for "none".
    return None if abs(bound) >= torch.finfo(torch.float32).max else bound


def _clip(at: At, x: Tensor, low: Value | None = None, high: Value | None = None) -> Tensor:
    if at.opset < 11:
        low, high = (None if at.get(name) is None else np.array(at.get(name)) for name in ("min", "max"))
    least, most = _bound(low, "minimum"), _bound(high, "maximum")
    if least is None and most is None:
        return x
    if least == 0 and most == 6 and x.is_floating_point():
        # What PyTorch writes this for; its derivative at the bounds is ReLU6's.
        return F.relu6(x)
    return torch.clamp(x, least, most)


def _prelu(at: At, x: Tensor, slope: Value) -> Tensor:
    slope = tensor(slope, at)
    aligned = [1] * (x.dim() - slope.dim()) + list(slope.shape)
    if slope.numel() == 1 or (slope.numel() == x.shape[1] and aligned[1] == x.shape[1]):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


def _selu(at: At, x: Tensor) -> Tensor:
    alpha, gamma = at.get("alpha", 1.67326319217681884765625), at.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)  # type: ignore[no-any-return]


def _hard_sigmoid(at: At, x: Tensor) -> Tensor:
    alpha, beta = at.get("alpha", 0.2), at.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def _gelu(at: At, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh" if at.get("approximate", b"none") == b"tanh" else "none")


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def apply(at: At, x: Tensor) -> Tensor:
        if at.opset >= 13:
            return function(x, dim=at.get("axis", -1))
        # Before opset 13, everything from the axis on is one vector.
        axis = at.get("axis", 1) % x.dim()
        return function(x.flatten(axis), dim=axis).reshape(x.shape)

    return apply


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Asin": _unary(torch.asin),
    "Atan": _unary(torch.atan),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(torch.ceil),
    "Celu": lambda at, x: F.celu(x, at.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _binary(_div),
    "Dropout": _dropout,
    "Elu": lambda at, x: F.elu(x, at.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda at, x: x,
    "LeakyRelu": lambda at, x: F.leaky_relu(x, at.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "Max": _variadic(torch.maximum),
    "Mean": lambda at, *values: reduce(torch.add, [tensor(value, at) for value in values]) / len(values),
    "Min": _variadic(torch.minimum),
    "Mish": _unary(F.mish),
    "Mod": _mod,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(F.relu),
    "Round": _unary(torch.round),
    "Selu": _selu,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softmax": _softmax(F.softmax),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _variadic(torch.add),
    "Swish": lambda at, x: x * torch.sigmoid(at.get("alpha", 1.0) * x),
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": lambda at, x: F.threshold(x, at.get("alpha", 1.0), 0.0),
    "Where": _where,
    "Xor": _binary(torch.logical_xor),
}
