"""ONNX operators on single elements, as PyTorch functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.values import NodeInfo, Operator, Unsupported, Value, as_operand, as_tensor

# Floating-point types of TensorProto. All become the dtype of the images.
_FLOAT_TYPES = {1, 10, 11, 16}
_INTEGER_TYPES = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    """Return the operator of a function of one tensor."""
    return lambda node, x: function(x)


def _binary(function: Callable[[Any, Any], Tensor]) -> Operator:
    """Return the operator of a function of two operands.

    A single number stays a number, because PyTorch differentiates x ** 2 better than x ** tensor(2).
    """

    def apply(node: NodeInfo, a: Value, b: Value) -> Tensor:
        if isinstance(a, Tensor):
            return function(a, as_operand(b, a, node))
        assert isinstance(b, Tensor)
        return function(as_tensor(a, node) if a.size > 1 or a.ndim > b.dim() else as_tensor(a.reshape(()), node), b)

    return apply


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return the operator that reduces any number of tensors with a function of two."""
    return lambda node, *values: reduce(function, [as_tensor(value, node) for value in values])


def _div(a: Tensor, b: Any) -> Tensor:
    floating = a.is_floating_point()
    return torch.div(a, b) if floating else torch.div(a, b, rounding_mode="trunc")


def _mod(node: NodeInfo, a: Value, b: Value) -> Tensor:
    function = torch.fmod if node.get("fmod", 0) else torch.remainder
    return function(as_tensor(a, node), as_tensor(b, node))


def _where(node: NodeInfo, condition: Value, a: Value, b: Value) -> Tensor:
    return torch.where(as_tensor(condition, node), as_tensor(a, node), as_tensor(b, node))


def _cast(node: NodeInfo, x: Tensor) -> Tensor:
    to = node.get("to")
    if to in _FLOAT_TYPES:
        return x if x.is_floating_point() else x.to(node.state.dtype)
    if to not in _INTEGER_TYPES:
        raise Unsupported(f"data type {to}")
    return x.to(_INTEGER_TYPES[to])


def _cast_like(node: NodeInfo, x: Value, like: Value) -> Tensor:
    x, like = as_tensor(x, node), as_tensor(like, node)
    return x.to(node.state.dtype if like.is_floating_point() else like.dtype)


def _dropout(node: NodeInfo, x: Tensor, ratio: Value | None = None, training: Value | None = None) -> Tensor:
    if training is not None and not (isinstance(training, np.ndarray) and not training.any()):
        raise Unsupported("training mode")
    return x


def _bound(value: Value | None, what: str) -> float | None:
    """Return a bound of Clip as a number, or None if there is no bound."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise Unsupported(f"a {what} that is not one constant")
    bound = float(value.item())
    # Some exporters write the largest float to mean "no bound".
    return None if abs(bound) >= torch.finfo(torch.float32).max else bound


def _clip(node: NodeInfo, x: Tensor, low: Value | None = None, high: Value | None = None) -> Tensor:
    if node.opset < 11:
        low, high = (None if node.get(name) is None else np.array(node.get(name)) for name in ("min", "max"))
    least, most = _bound(low, "minimum"), _bound(high, "maximum")
    if least is None and most is None:
        return x
    if least == 0 and most == 6 and x.is_floating_point():
        # PyTorch exports ReLU6 as this Clip. The derivatives of ReLU6 and Clip differ at the bounds.
        return F.relu6(x)
    return torch.clamp(x, least, most)


def _prelu(node: NodeInfo, x: Tensor, slope: Value) -> Tensor:
    slope = as_tensor(slope, node)
    aligned = [1] * (x.dim() - slope.dim()) + list(slope.shape)
    if slope.numel() == 1 or (slope.numel() == x.shape[1] and aligned[1] == x.shape[1]):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


def _selu(node: NodeInfo, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)  # type: ignore[no-any-return]


def _hard_sigmoid(node: NodeInfo, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def _gelu(node: NodeInfo, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh" if node.get("approximate", b"none") == b"tanh" else "none")


def _softmax(function: Callable[..., Tensor]) -> Operator:
    """Return the operator of a softmax or log-softmax."""

    def apply(node: NodeInfo, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, dim=node.get("axis", -1))
        # Before opset 13, the dimensions from the axis on are one vector.
        axis = node.get("axis", 1) % x.dim()
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
    "Celu": lambda node, x: F.celu(x, node.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _binary(_div),
    "Dropout": _dropout,
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda node, x: x,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "Max": _variadic(torch.maximum),
    "Mean": lambda node, *values: reduce(torch.add, [as_tensor(value, node) for value in values]) / len(values),
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
    "Swish": lambda node, x: x * torch.sigmoid(node.get("alpha", 1.0) * x),
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": lambda node, x: F.threshold(x, node.get("alpha", 1.0), 0.0),
    "Where": _where,
    "Xor": _binary(torch.logical_xor),
}
