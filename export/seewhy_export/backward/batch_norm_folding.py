"""Batch norms right behind a convolution, folded into its weights for the forward and the backward pass alike.

onnxruntime folds the forward pair by itself. It cannot see that the scale in the gradient belongs to the same weights:
that is one more pass over memory for each convolution.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten: Any = torch.ops.aten

_CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}


def foldable(nodes: Iterable[Node], kept: Collection[Node | None]) -> dict[Node, Node]:
    """Batch norms, and the convolution that each can be folded into: one whose result nothing else reads.

    `kept` are nodes whose value is wanted for itself.
    """
    found = {}
    for node in filter(_is_fixed_norm, nodes):
        source = node.args[0]
        if (
            isinstance(source, Node)
            and source.target in _CONVOLUTIONS
            and len(source.users) == 1
            and source not in kept
        ):
            found[node] = source
    return found


def _is_fixed_norm(node: Node) -> bool:
    """A batch norm with stored statistics: args are x, weight, bias, mean, variance, training and more."""
    return node.target is aten.batch_norm.default and not node.args[5] and None not in node.args[3:5]


def fold(
    convolution: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    others: Iterable[Any],
    norm: tuple[Any, ...],
) -> Tensor:
    """The convolution of x with weights that the norm's scale and shift have gone into.

    Args:
        convolution: an ATen convolution, of arguments x, weight, bias and `others`.
        norm: the batch norm's arguments behind its first: weight, bias, mean, variance, training, momentum, epsilon.
    """
    gamma, beta, mean, variance, _, _, epsilon, *_ = norm
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    shift = shift if beta is None else shift + beta
    result: Tensor = convolution(x, weight * scale.reshape([-1] + [1] * (weight.dim() - 1)), shift, *others)
    return result
