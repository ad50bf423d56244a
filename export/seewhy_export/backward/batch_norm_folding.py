"""Folding of batch norms into the convolutions before them, for both the forward and the backward pass.

onnxruntime folds the forward pass by itself. It cannot see that the scale in the gradient belongs to the same weights,
which costs one more pass over memory for each convolution.
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


def find_foldable_norms(nodes: Iterable[Node], kept: Collection[Node | None]) -> dict[Node, Node]:
    """Find the batch norms that can be folded into a convolution whose result nothing else reads.

    Args:
        nodes: Nodes of a forward graph.
        kept: Nodes whose own values are needed; no norm is folded into them.

    Returns:
        Batch norm -> convolution.
    """
    foldable = {}
    for node in filter(_has_stored_statistics, nodes):
        source = node.args[0]
        if (
            isinstance(source, Node)
            and source.target in _CONVOLUTIONS
            and len(source.users) == 1
            and source not in kept
        ):
            foldable[node] = source
    return foldable


def _has_stored_statistics(node: Node) -> bool:
    """Tell whether a node is a batch norm with stored statistics; args: x, weight, bias, mean, variance, training..."""
    return node.target is aten.batch_norm.default and not node.args[5] and None not in node.args[3:5]


def convolve_with_folded_norm(
    convolution: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    others: Iterable[Any],
    norm: tuple[Any, ...],
) -> Tensor:
    """Convolve with weights into which a batch norm is folded.

    With s = gamma / sqrt(variance + epsilon), the weights become s w, and the bias s (b - mean) + beta.

    Args:
        convolution: ATen convolution that takes x, weight, bias and `others`.
        x: Input of the convolution.
        weight: Weights of the convolution.
        bias: Bias of the convolution, or None.
        others: Further arguments of the convolution.
        norm: Arguments of the batch norm after its first: weight, bias, mean, variance, training, momentum, epsilon.

    Returns:
        The output of the batch norm.
    """
    gamma, beta, mean, variance, _, _, epsilon, *_ = norm
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    shift = shift if beta is None else shift + beta
    result: Tensor = convolution(x, weight * scale.reshape([-1] + [1] * (weight.dim() - 1)), shift, *others)
    return result
