"""Rules for the gradient at a rectifier: plain, guided and deconvnet.

A rule takes the gradient that arrives at a rectifier's output and returns the one for its input. It applies the
rectifier's derivative, the rectifier itself, or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy_export.backward.rectifiers import Rectifier


@dataclass(frozen=True)
class RectifierCall:
    """One call of a rectifier in a forward pass."""

    rectifier: Rectifier
    x: Tensor
    """Input of the rectifier."""
    y: Tensor
    """Output of the rectifier."""
    weight: Tensor | None
    """Learned slopes, for PReLU."""
    may_be_infinite: bool
    """True if incoming gradients may be infinite where y is zero, because an operator such as sqrt follows."""

    def chain(self, gradient: Tensor) -> Tensor:
        """Return g f'(x), which is 0 wherever f'(x) is 0, even if g is infinite there."""
        derivative = self.rectifier.derivative(self.x, self.y, self.weight)
        if self.may_be_infinite:
            gradient = torch.where(derivative != 0, gradient, 0)
        return gradient * derivative

    def rectify(self, gradient: Tensor) -> Tensor:
        """Return the rectifier itself applied to a gradient."""
        return self.rectifier.rectify(gradient, self.weight)


Rule = Callable[[Tensor, RectifierCall], Tensor]
"""Function from the incoming gradient g and a rectifier's call to the outgoing gradient."""


def plain(gradient: Tensor, call: RectifierCall) -> Tensor:
    """Apply the chain rule: g f'(x)."""
    return call.chain(gradient)


def guided(gradient: Tensor, call: RectifierCall) -> Tensor:
    """Apply guided backpropagation: relu(g) f'(x) (Springenberg 2014, arXiv:1412.6806, section 3.4)."""
    return call.chain(torch.relu(gradient))


def deconvnet(gradient: Tensor, call: RectifierCall) -> Tensor:
    """Apply the deconvnet rule: f(g), whatever x was (Zeiler & Fergus 2013, arXiv:1311.2901, section 2.1).

    The paper passes the backward signal through the same non-linearity as the forward signal. This is relu(g) for
    every rectifier that is zero below zero. LeakyReLU and PReLU keep their own slopes.
    """
    return call.rectify(gradient)


class ActiveRule:
    """Holder of the rule that the next backward pass applies inside the guided scope."""

    def __init__(self) -> None:
        self.rule: Rule = plain


class RuledRectifier(torch.autograd.Function):
    """Rectifier whose forward pass is its own, and whose backward pass follows the active rule."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        run: Callable[[Tensor], Tensor],
        rectifier: Rectifier,
        active: ActiveRule | None,
        may_be_infinite: bool,
    ) -> Tensor:
        """Run the rectifier and save its input, output and slopes."""
        y = run(x)
        ctx.save_for_backward(x, y, weight)
        ctx.rectifier, ctx.active, ctx.may_be_infinite = rectifier, active, may_be_infinite
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the active rule to the incoming gradient."""
        x, y, weight = ctx.saved_tensors
        rule = plain if ctx.active is None else ctx.active.rule
        call = RectifierCall(ctx.rectifier, x, y, weight, ctx.may_be_infinite)
        return rule(gradient, call), None, None, None, None, None
