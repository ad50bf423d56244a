"""What a rectifier does to the gradient that comes back to it.

A rectifier is an activation that cuts off, or damps, what is below zero. Each knows its derivative, with PyTorch's own
choice at the boundary, and what it makes of a signal that goes backwards; a rule says which of these the incoming
gradient meets. Both are data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .masks import is_below, is_positive

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


@dataclass(frozen=True)
class Rectified:
    """A rectifier and what passed through it."""

    rectifier: Rectifier
    x: Tensor
    y: Tensor
    weight: Tensor | None

    def derivative(self) -> Tensor:
        return self.rectifier.derivative(self.x, self.y, self.weight)

    def rectify(self, gradient: Tensor) -> Tensor:
        return self.rectifier.rectify(gradient, self.weight)


Rule = Callable[[Tensor, Rectified], Tensor]
"""(incoming gradient g, what the rectifier did) -> outgoing gradient."""


def plain(gradient: Tensor, at: Rectified) -> Tensor:
    """The chain rule: g f'(x)."""
    return gradient * at.derivative()


def guided(gradient: Tensor, at: Rectified) -> Tensor:
    """Guided backpropagation: relu(g) f'(x) (Springenberg 2014, arXiv:1412.6806, section 3.4)."""
    return torch.relu(gradient) * at.derivative()


def deconvnet(gradient: Tensor, at: Rectified) -> Tensor:
    """Deconvnet: f(g), whatever x was (Zeiler & Fergus 2013, arXiv:1311.2901, section 2.1, "Rectification").

    The paper passes the signal that goes down through the same non-linearity as the one that went up. That is relu(g)
    for all that is zero below zero, and LeakyReLU and PReLU with their own slopes.
    """
    return at.rectify(gradient)


class RuleInForce:
    """Holds the rule that the next backward pass applies inside the guided scope."""

    def __init__(self) -> None:
        self.rule: Rule = plain


class Rectify(torch.autograd.Function):
    """Runs a rectifier forward as it is, and backward by the rule in force."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        run: Callable[[Tensor], Tensor],
        rectifier: Rectifier,
        in_force: RuleInForce | None,
    ) -> Tensor:
        y = run(x)
        ctx.save_for_backward(x, y, weight)
        ctx.rectifier, ctx.in_force = rectifier, in_force
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight = ctx.saved_tensors
        rule = plain if ctx.in_force is None else ctx.in_force.rule
        return rule(gradient, Rectified(ctx.rectifier, x, y, weight)), None, None, None, None


# Recognising rectifiers: one small function per operator. Each takes the operator's arguments and gives the
# rectifier, or None where these arguments make it something else (a Hardtanh from -1 to 1 is no rectifier).


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str, default: Any) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def _positive_output(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    mask: Tensor = is_positive(y)
    return mask


def _relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier:
    return Rectifier("relu", _positive_output)


def _threshold(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier | None:
    return Rectifier("threshold", _positive_output) if tuple(args[1:3]) == (0, 0) else None


def _hardtanh(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier | None:
    low = _argument(args, kwargs, 1, "min_val", -1.0)
    high = _argument(args, kwargs, 2, "max_val", 1.0)
    if low != 0 or high <= 0:
        return None
    return Rectifier(
        "relu6" if high == 6 else "hardtanh",
        lambda x, y, weight: is_positive(y) * is_below(y, float(high)),
    )


def _clamp(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier | None:
    low = _argument(args, kwargs, 1, "min", None)
    high = _argument(args, kwargs, 2, "max", None)
    if low != 0 or (high is not None and high <= 0):
        return None

    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        # Unlike ReLU, clamp passes the gradient at its bounds, so the output does not tell.
        inside = x >= 0 if high is None else torch.logical_and(x >= 0, x <= high)
        return inside.to(x.dtype)

    return Rectifier("clamp", derivative)


def _leaky_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier:
    slope = _argument(args, kwargs, 1, "negative_slope", 0.01)

    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        damped: Tensor = is_positive(x) * (1 - slope) + slope
        return damped

    return Rectifier("leaky_relu", derivative, lambda signal, weight: signal * derivative(signal, signal, weight))


def _prelu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier:
    def derivative(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        slope = weight.reshape([1, -1] + [1] * (x.dim() - 2)) if weight.numel() > 1 else weight
        mask: Tensor = is_positive(x)
        return mask + (1 - mask) * slope

    return Rectifier("prelu", derivative, lambda signal, weight: signal * derivative(signal, signal, weight))


RECTIFIERS: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], Rectifier | None]] = {
    aten.relu.default: _relu,
    aten.threshold.default: _threshold,
    aten.hardtanh.default: _hardtanh,
    aten.relu6.default: lambda args, kwargs: _hardtanh((args[0], 0, 6), {}),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.leaky_relu.default: _leaky_relu,
    aten.prelu.default: _prelu,
}

SMOOTH_ACTIVATIONS = {
    aten.silu.default: "silu",
    aten.gelu.default: "gelu",
    aten.hardswish.default: "hardswish",
    aten.mish.default: "mish",
    aten.softplus.default: "softplus",
    aten.elu.default: "elu",
}


def rectifier_of(node: torch.fx.Node) -> Rectifier | None:
    """The rectifier that a graph node is, or None."""
    recognise = RECTIFIERS.get(node.target)
    return None if recognise is None else recognise(node.args, dict(node.kwargs))


def in_scope(node: torch.fx.Node, scope: tuple[str, ...] | None) -> bool:
    """Whether a node belongs to a module whose path is one of the prefixes; None holds everything."""
    if scope is None:
        return True
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return any(path == prefix or path.startswith(prefix + ".") for path in paths for prefix in scope)
