"""Rectifiers: activations that cut off, or damp, what is below zero, recognised in a traced graph.

Each knows its derivative, with PyTorch's own choice at the boundary, and what it makes of a signal that goes backwards.
Most are operators of their own. People also write a ReLU as a maximum with zero, or as a choice by sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from seewhy_export.capture.forward_graph import IS_ZERO
from seewhy_export.lowering.onnx_masks import is_below, is_positive

aten: Any = torch.ops.aten

Derivative = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(input x, output y, weight) -> f'(x). The output is preferred: it is kept anyway, and so nothing else must be."""

Rectification = Callable[[Tensor, Tensor | None], Tensor]
"""(signal, weight) -> the signal, rectified."""


def _positive_part(signal: Tensor, weight: Tensor | None) -> Tensor:
    return torch.relu(signal)


@dataclass(frozen=True)
class Rectifier:
    """One rectifier as it stands in a graph."""

    kind: str
    derivative: Derivative
    rectify: Rectification = _positive_part
    """The rectifier itself, on a gradient, less any upper bound: a gradient has a scale of its own, not the input's."""
    x: int = 0
    """Which of the node's arguments is rectified."""
    weight: int | None = None
    """Which of them holds slopes."""


def rectifier_of(node: Node) -> Rectifier | None:
    """The rectifier that a graph node is, or None."""
    recognise = RECTIFIERS.get(node.target)
    return None if recognise is None else recognise(node)


def in_scope(node: Node, scope: tuple[str, ...] | None) -> bool:
    """Whether a node belongs to a module whose path is one of the prefixes; None holds everything."""
    if scope is None:
        return True
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return any(path == prefix or path.startswith(prefix + ".") for path in paths for prefix in scope)


# Derivatives.


def _positive_output(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    mask: Tensor = is_positive(y)
    return mask


def _positive_input(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    mask: Tensor = is_positive(x)
    return mask


def _not_negative_input(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return (x >= 0).to(x.dtype)


def _half_at_zero(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """PyTorch gives each of two equal values half of their maximum's gradient."""
    return (torch.sign(x) + 1) * 0.5


# Recognising: one small function for each way of writing, from a node to the rectifier that it is. None where the
# arguments make it something else: a Hardtanh from -1 to 1 is no rectifier.


def _argument(node: Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _relu(node: Node) -> Rectifier:
    return Rectifier("relu", _positive_output)


def _threshold(node: Node) -> Rectifier | None:
    return Rectifier("threshold", _positive_output) if tuple(node.args[1:3]) == (0, 0) else None


def _between(low: Any, high: Any) -> Rectifier | None:
    if low != 0 or high <= 0:
        return None

    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        mask: Tensor = is_positive(y) * is_below(y, float(high))
        return mask

    return Rectifier("relu6" if high == 6 else "hardtanh", _positive_output if math.isinf(high) else derivative)


def _hardtanh(node: Node) -> Rectifier | None:
    return _between(_argument(node, 1, "min_val", -1.0), _argument(node, 2, "max_val", 1.0))


def _clamp(node: Node) -> Rectifier | None:
    low, high = _argument(node, 1, "min", None), _argument(node, 2, "max", None)
    if not _is_zero(low) or isinstance(high, Node) or (high is not None and high <= 0):
        return None

    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        # Unlike ReLU, clamp passes the gradient at its bounds, so the output does not tell.
        inside = x >= 0 if high is None else torch.logical_and(x >= 0, x <= high)
        return inside.to(x.dtype)

    return Rectifier("clamp", derivative)


def _damping(slope: float) -> Rectifier:
    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        damped: Tensor = is_positive(x) * (1 - slope) + slope
        return damped

    return Rectifier("leaky_relu", derivative, lambda signal, weight: signal * derivative(signal, signal, weight))


def _rrelu(node: Node) -> Rectifier | None:
    """In evaluation mode the slope is the middle of its range."""
    training = _argument(node, 3, "training", False)
    return None if training else _damping((_argument(node, 1, "lower", 1 / 8) + _argument(node, 2, "upper", 1 / 3)) / 2)


def _prelu(node: Node) -> Rectifier:
    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        slope = weight.reshape([1, -1] + [1] * (x.dim() - 2)) if weight.numel() > 1 else weight
        mask: Tensor = is_positive(x)
        return mask + (1 - mask) * slope

    return Rectifier("prelu", derivative, lambda signal, weight: signal * derivative(signal, signal, weight), weight=1)


def _maximum(node: Node) -> Rectifier | None:
    """maximum(x, 0), or (0, x)."""
    zeros = [i for i in (0, 1) if _is_zero(node.args[i])]
    if len(zeros) != 1 or not _keeps_shape(node, 1 - zeros[0]):
        return None
    return Rectifier("maximum", _half_at_zero, x=1 - zeros[0])


_POSITIVE: dict[Any, Derivative] = {
    aten.gt.Scalar: _positive_input,
    aten.gt.Tensor: _positive_input,
    aten.ge.Scalar: _not_negative_input,
    aten.ge.Tensor: _not_negative_input,
}
_NEGATIVE: dict[Any, Derivative] = {
    aten.le.Scalar: _positive_input,
    aten.le.Tensor: _positive_input,
    aten.lt.Scalar: _not_negative_input,
    aten.lt.Tensor: _not_negative_input,
}
"""Comparisons with zero, and the derivative where the choice falls on x (or, second, on zero)."""


def _by_sign(kind: str, node: Node, condition: Any, x: int, comparisons: dict[Any, Derivative]) -> Rectifier | None:
    """A choice between x and zero, made by comparing that very x with zero."""
    condition = _source(condition)
    if not isinstance(condition, Node) or condition.target not in comparisons or not _keeps_shape(node, x):
        return None
    if condition.args[0] is not node.args[x] or not _is_zero(condition.args[1]):
        return None
    return Rectifier(kind, comparisons[condition.target], x=x)


def _where(node: Node) -> Rectifier | None:
    """where(x > 0, x, 0), or where(x < 0, 0, x)."""
    condition, chosen, other = node.args
    if _is_zero(other):
        return _by_sign("where", node, condition, 1, _POSITIVE)
    return _by_sign("where", node, condition, 2, _NEGATIVE) if _is_zero(chosen) else None


def _masked_fill(node: Node) -> Rectifier | None:
    """x.masked_fill(x < 0, 0)."""
    return _by_sign("masked_fill", node, node.args[1], 0, _NEGATIVE) if _is_zero(node.args[2]) else None


def _times_mask(node: Node) -> Rectifier | None:
    """x * (x > 0), or (x > 0) * x."""
    return next(
        (found for x in (0, 1) if (found := _by_sign("mask", node, node.args[1 - x], x, _POSITIVE)) is not None), None
    )


RECTIFIERS: dict[Any, Callable[[Node], Rectifier | None]] = {
    aten.relu.default: _relu,
    aten.threshold.default: _threshold,
    aten.hardtanh.default: _hardtanh,
    aten.relu6.default: lambda node: _between(0, 6),
    aten.clamp.default: _clamp,
    aten.clamp.Tensor: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_min.Tensor: _clamp,
    aten.leaky_relu.default: lambda node: _damping(_argument(node, 1, "negative_slope", 0.01)),
    aten.rrelu.default: _rrelu,
    aten.prelu.default: _prelu,
    aten.maximum.default: _maximum,
    aten.max.other: _maximum,
    aten.where.self: _where,
    aten.where.ScalarOther: _where,
    aten.where.ScalarSelf: _where,
    aten.masked_fill.Scalar: _masked_fill,
    aten.mul.Tensor: _times_mask,
}

SMOOTH_ACTIVATIONS = {
    aten.silu.default: "silu",
    aten.gelu.default: "gelu",
    aten.hardswish.default: "hardswish",
    aten.mish.default: "mish",
    aten.softplus.default: "softplus",
    aten.elu.default: "elu",
    aten.celu.default: "celu",
    aten.selu.default: "selu",
}

# What leaves a constant's values as they are.
_COPIES = {
    aten.lift_fresh_copy.default,
    aten.detach.default,
    aten.clone.default,
    aten.alias.default,
    aten.to.dtype,
    aten.to.device,
    aten._to_copy.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.type_as.default,
}
_RESHAPED = {aten.detach_.default, aten.view.default, aten.reshape.default, aten.unsqueeze.default}
"""What leaves every element of a constant of zeros a zero."""
_ZEROS = {aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default}
_FILLED = {aten.full.default: 1, aten.full_like.default: 1, aten.new_full.default: 2, aten.scalar_tensor.default: 0}


def _source(value: Any) -> Any:
    while isinstance(value, Node) and value.target in _COPIES:
        value = value.args[0]
    return value


def _is_zero(value: Any) -> bool:
    """A zero, or a tensor of zeros that nothing computes."""
    while isinstance(value, Node) and value.target in _COPIES | _RESHAPED:
        value = value.args[0]
    if not isinstance(value, Node):
        return isinstance(value, (int, float)) and value == 0
    if value.target in _FILLED:
        return _is_zero(value.args[_FILLED[value.target]])
    return value.target in _ZEROS or bool(value.meta.get(IS_ZERO))


def _keeps_shape(node: Node, x: int) -> bool:
    """Whether the result has the shape of the x argument, so that nothing was broadcast."""
    argument = node.args[x]
    return isinstance(argument, Node) and str(node.meta["val"].shape) == str(argument.meta["val"].shape)


_STEEP = {
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.log.default,
    aten.log2.default,
    aten.log10.default,
    aten.pow.Tensor_Tensor,
}


def _is_steep(user: Node, node: Node) -> bool:
    """Whether an operator's gradient can be infinite where `node`, which it reads, is zero."""
    if user.target in (aten.div.Tensor, aten.div.Tensor_mode):
        return user.args[1] is node
    if user.target is aten.pow.Tensor_Scalar:
        return not isinstance(user.args[1], (int, float)) or user.args[1] < 1
    return user.target in _STEEP


def is_steep_behind(node: Node) -> bool:
    """Whether a gradient can be infinite where this node is zero: a root, a logarithm or a quotient of it follows."""
    seen, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        for user in current.users:
            if _is_steep(user, current):
                return True
            if user not in seen and torch.Tag.pointwise in getattr(user.target, "tags", ()):
                seen.add(user)
                waiting.append(user)
    return False
