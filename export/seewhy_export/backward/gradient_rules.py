"""Rules for the gradient that comes back to a rectifier: plain, guided and deconvnet.

A rule says which of two things the incoming gradient meets: the rectifier's derivative, or the rectifier itself. Rules
are data, as the rectifiers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy_export.backward.rectifiers import Rectifier


@dataclass(frozen=True)
class Rectified:
    """A rectifier and what passed through it."""

    rectifier: Rectifier
    x: Tensor
    y: Tensor
    weight: Tensor | None
    selects: bool
    """Whether gradients may be infinite here, where the rectifier is zero: what is behind is steep, as sqrt is."""

    def pass_back(self, gradient: Tensor) -> Tensor:
        """g f'(x), and 0 where f'(x) is, whatever g is there."""
        derivative = self.rectifier.derivative(self.x, self.y, self.weight)
        if self.selects:
            gradient = torch.where(derivative != 0, gradient, 0)
        return gradient * derivative

    def rectify(self, gradient: Tensor) -> Tensor:
        return self.rectifier.rectify(gradient, self.weight)


Rule = Callable[[Tensor, Rectified], Tensor]
"""(incoming gradient g, what the rectifier did) -> outgoing gradient."""


def plain(gradient: Tensor, at: Rectified) -> Tensor:
    """The chain rule: g f'(x)."""
    return at.pass_back(gradient)


def guided(gradient: Tensor, at: Rectified) -> Tensor:
    """Guided backpropagation: relu(g) f'(x) (Springenberg 2014, arXiv:1412.6806, section 3.4)."""
    return at.pass_back(torch.relu(gradient))


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
        selects: bool,
    ) -> Tensor:
        y = run(x)
        ctx.save_for_backward(x, y, weight)
        ctx.rectifier, ctx.in_force, ctx.selects = rectifier, in_force, selects
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight = ctx.saved_tensors
        rule = plain if ctx.in_force is None else ctx.in_force.rule
        return rule(gradient, Rectified(ctx.rectifier, x, y, weight, ctx.selects)), None, None, None, None, None
