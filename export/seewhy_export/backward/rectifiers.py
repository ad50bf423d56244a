"""Recognition of rectifiers in a traced graph: activations that cut off or damp values below zero.

Each rectifier has a derivative, with PyTorch's own choice at the boundary, and a function that rectifies a gradient.
Most rectifiers are operators of their own. Code may also write a ReLU as a maximum with zero, or as a selection by
sign.
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
"""Function (input x, output y, slopes) -> f'(x). It uses y if it can: y is kept anyway, and x then need not be."""

Rectification = Callable[[Tensor, Tensor | None], Tensor]
"""Function (gradient, slopes) -> rectified gradient."""


def _positive_part(gradient: Tensor, weight: Tensor | None) -> Tensor:
    return torch.relu(gradient)


@dataclass(frozen=True)
class Rectifier:
    """A rectifier in a graph."""

    kind: str
    """Name that the model file's metadata reports."""
    derivative: Derivative
    rectify: Rectification = _positive_part
    """The rectifier without its upper bound: gradients have another scale than inputs, so the bound means nothing."""
    input_index: int = 0
    """Index of the node's argument that is rectified."""
    slope_index: int | None = None
    """Index of the argument that holds slopes; None if there is none."""


def rectifier_of(node: Node) -> Rectifier | None:
    """Return the rectifier that a graph node is, or None if it is not one."""
    recognise = RECTIFIERS.get(node.target)
    return None if recognise is None else recognise(node)


def in_scope(node: Node, scope: tuple[str, ...] | None) -> bool:
    """Decide whether the guided rule applies to a node.

    Args:
        node: Node of a forward graph.
        scope: Module path prefixes, in whole path segments; None holds every node.

    Returns:
        True if the node belongs to the guided scope.
    """
    if scope is None:
        return True
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return any(path == prefix or path.startswith(prefix + ".") for path in paths for prefix in scope)


# Derivatives


def _positive_output(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    mask: Tensor = is_positive(y)
    return mask


def _positive_input(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    mask: Tensor = is_positive(x)
    return mask


def _not_negative_input(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    return (x >= 0).to(x.dtype)


def _half_at_zero(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """Return 0.5 at zero, since PyTorch gives each of two equal values half of their maximum's gradient."""
    return (torch.sign(x) + 1) * 0.5


# Recognition: one function for each way of writing a rectifier. It returns None if the node's arguments make it
# something else, as a Hardtanh from -1 to 1 is.


def _argument(node: Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _relu(node: Node) -> Rectifier:
    return Rectifier("relu", _positive_output)


def _threshold(node: Node) -> Rectifier | None:
    return Rectifier("threshold", _positive_output) if tuple(node.args[1:3]) == (0, 0) else None


def _between(low: Any, high: Any) -> Rectifier | None:
    """Return the rectifier that limits values to a range, if the range starts at zero."""
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
        # Unlike ReLU, clamp passes the gradient at its bounds, so the output alone does not decide.
        inside = x >= 0 if high is None else torch.logical_and(x >= 0, x <= high)
        return inside.to(x.dtype)

    return Rectifier("clamp", derivative)


def _by_derivative(derivative: Derivative) -> Rectification:
    """Return f(g) = g f'(g), which holds for rectifiers that are linear on both sides of zero."""
    return lambda gradient, weight: gradient * derivative(gradient, gradient, weight)


def _damping(slope: float) -> Rectifier:
    """Return the rectifier that multiplies negative values by a slope."""

    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        damped: Tensor = is_positive(x) * (1 - slope) + slope
        return damped

    return Rectifier("leaky_relu", derivative, _by_derivative(derivative))


def _rrelu(node: Node) -> Rectifier | None:
    """Return a rectifier whose slope is the middle of RReLU's range, as in evaluation mode."""
    training = _argument(node, 3, "training", False)
    return None if training else _damping((_argument(node, 1, "lower", 1 / 8) + _argument(node, 2, "upper", 1 / 3)) / 2)


def _prelu(node: Node) -> Rectifier:
    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        slope = weight.reshape([1, -1] + [1] * (x.dim() - 2)) if weight.numel() > 1 else weight
        mask: Tensor = is_positive(x)
        return mask + (1 - mask) * slope

    return Rectifier("prelu", derivative, _by_derivative(derivative), slope_index=1)


def _maximum(node: Node) -> Rectifier | None:
    """Recognise maximum(x, 0) and maximum(0, x)."""
    zeros = [i for i in (0, 1) if _is_zero(node.args[i])]
    if len(zeros) != 1 or not _keeps_shape(node, 1 - zeros[0]):
        return None
    return Rectifier("maximum", _half_at_zero, input_index=1 - zeros[0])


_X_IF_TRUE: dict[Any, Derivative] = {
    aten.gt.Scalar: _positive_input,
    aten.gt.Tensor: _positive_input,
    aten.ge.Scalar: _not_negative_input,
    aten.ge.Tensor: _not_negative_input,
}
"""Comparisons of x with zero that select x if they hold, and the derivative of the selection."""
_X_IF_FALSE: dict[Any, Derivative] = {
    aten.le.Scalar: _positive_input,
    aten.le.Tensor: _positive_input,
    aten.lt.Scalar: _not_negative_input,
    aten.lt.Tensor: _not_negative_input,
}
"""Comparisons of x with zero that select x if they do not hold, and the derivative of the selection."""


def _by_sign(kind: str, node: Node, condition: Any, x: int, comparisons: dict[Any, Derivative]) -> Rectifier | None:
    """Recognise a selection between x and zero that compares the same x with zero."""
    condition = _source(condition)
    if not isinstance(condition, Node) or condition.target not in comparisons or not _keeps_shape(node, x):
        return None
    if condition.args[0] is not node.args[x] or not _is_zero(condition.args[1]):
        return None
    return Rectifier(kind, comparisons[condition.target], input_index=x)


def _where(node: Node) -> Rectifier | None:
    """Recognise where(x > 0, x, 0) and where(x < 0, 0, x)."""
    condition, chosen, other = node.args
    if _is_zero(other):
        return _by_sign("where", node, condition, 1, _X_IF_TRUE)
    return _by_sign("where", node, condition, 2, _X_IF_FALSE) if _is_zero(chosen) else None


def _masked_fill(node: Node) -> Rectifier | None:
    """Recognise x.masked_fill(x < 0, 0)."""
    return _by_sign("masked_fill", node, node.args[1], 0, _X_IF_FALSE) if _is_zero(node.args[2]) else None


def _times_mask(node: Node) -> Rectifier | None:
    """Recognise x * (x > 0) and (x > 0) * x."""
    return next(
        (found for x in (0, 1) if (found := _by_sign("mask", node, node.args[1 - x], x, _X_IF_TRUE)) is not None), None
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

# Operators that keep the values of a constant.
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
_RESHAPES = {aten.detach_.default, aten.view.default, aten.reshape.default, aten.unsqueeze.default}
"""Further operators that keep a constant of zeros zero."""
_ZEROS = {aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default}
_FILLED = {aten.full.default: 1, aten.full_like.default: 1, aten.new_full.default: 2, aten.scalar_tensor.default: 0}
"""Operators that fill a tensor with a value, and the index of that argument."""


def _source(value: Any) -> Any:
    """Return the value that copies come from."""
    while isinstance(value, Node) and value.target in _COPIES:
        value = value.args[0]
    return value


def _is_zero(value: Any) -> bool:
    """Tell whether a value is the number zero, or a constant tensor of zeros."""
    while isinstance(value, Node) and value.target in _COPIES | _RESHAPES:
        value = value.args[0]
    if not isinstance(value, Node):
        return isinstance(value, (int, float)) and value == 0
    if value.target in _FILLED:
        return _is_zero(value.args[_FILLED[value.target]])
    return value.target in _ZEROS or bool(value.meta.get(IS_ZERO))


def _keeps_shape(node: Node, x: int) -> bool:
    """Tell whether the result has the shape of argument x, so that x was not broadcast."""
    argument = node.args[x]
    return isinstance(argument, Node) and str(node.meta["val"].shape) == str(argument.meta["val"].shape)


_INFINITE_SLOPE_AT_ZERO = {
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.log.default,
    aten.log2.default,
    aten.log10.default,
    aten.pow.Tensor_Tensor,
}


def _may_be_infinite_at_zero(user: Node, node: Node) -> bool:
    """Tell whether the gradient of an operator that reads `node` can be infinite where `node` is zero."""
    if user.target in (aten.div.Tensor, aten.div.Tensor_mode):
        return user.args[1] is node
    if user.target is aten.pow.Tensor_Scalar:
        return not isinstance(user.args[1], (int, float)) or user.args[1] < 1
    return user.target in _INFINITE_SLOPE_AT_ZERO


def may_receive_infinite_gradient(node: Node) -> bool:
    """Search the users of a node for an operator whose gradient can be infinite at zero.

    Args:
        node: Node of a forward graph.

    Returns:
        True if a gradient can be infinite where this node is zero. This happens if a root, a logarithm or a quotient
        follows, with only element-wise operators between.
    """
    seen, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        for user in current.users:
            if _may_be_infinite_at_zero(user, current):
                return True
            if user not in seen and torch.Tag.pointwise in getattr(user.target, "tags", ()):
                seen.add(user)
                waiting.append(user)
    return False
