"""Checks for networks whose result for an image is not a function of that image alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from seewhy.errors import ExportError
from seewhy_export._shared.torch_internals import OpOverload, schema_of
from seewhy_export._shared.trial_run import evaluating
from seewhy_export.capture.node_origins import describe_node

aten: Any = torch.ops.aten

DEPENDENT = (
    "the network's result for an image depends on the other images of the batch, so an image cannot be explained by "
    "itself; look for operations over dimension 0, or a norm without running statistics"
)
"""Error message for a network whose images are not independent."""

_RANDOMNESS_ARGUMENTS = ("train", "training", "dropout_p")
"""Arguments that switch the randomness of operators such as dropout on and off."""


def refuse_randomness(nodes: Iterable[Node]) -> None:
    """Check that no node draws random numbers.

    Args:
        nodes: Nodes of a forward graph.

    Raises:
        ExportError: If one of the nodes draws random numbers.
    """
    for node in nodes:
        if _draws_random_numbers(node):
            raise ExportError(
                f"{describe_node(node)} draws random numbers in evaluation mode too, so two runs would disagree; "
                f"switch the randomness off there"
            )


def _draws_random_numbers(node: Node) -> bool:
    """Tell whether an operator is random with the arguments that it gets."""
    overload = node.target
    if not isinstance(overload, OpOverload) or torch.Tag.nondeterministic_seeded not in overload.tags:
        return False
    for position, argument in enumerate(schema_of(overload).arguments):
        if argument.name in _RANDOMNESS_ARGUMENTS:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            return bool(argument.default_value if given is None else given)
    return True


def refuse_batch_statistics(nodes: Iterable[Node]) -> None:
    """Check that no batch norm uses the statistics of the batch.

    Args:
        nodes: Nodes of a forward graph that depend on the images.

    Raises:
        ExportError: If one of the nodes is a batch norm in training mode.
    """
    for node in nodes:
        training = node.args[5] if len(node.args) > 5 else node.kwargs.get("training", False)
        if node.target is aten.batch_norm.default and training and not _has_batch_of_one(node.args[0]):
            raise ExportError(
                f"{describe_node(node)} uses the statistics of the batch, so an image's result depends on the others; "
                f"give it running statistics (track_running_stats=True), or use a group norm"
            )


def refuse_dependence(module: nn.Module, channels: int, image_size: tuple[int, int]) -> None:
    """Check that the logits of an image do not depend on the other images of the batch.

    The gradient of one image's logits with respect to another image is exactly zero if and only if nothing that is
    differentiable connects them, however small its effect is.

    Args:
        module: Prepared network that returns logits (N, class count). A module that fails is not refused here.
        channels: Number of image channels.
        image_size: (H, W) of the images in pixels.

    Raises:
        ExportError: If the gradient of an image's logits reaches another image.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, *image_size, generator=generator).requires_grad_(True)
    try:
        with torch.enable_grad(), evaluating(module):
            logits = module(images.clone())  # a clone, since the module may write into its input
            scores = (logits * torch.randn(logits.shape, generator=generator)).sum(1)
            gradients = [torch.autograd.grad(score, images, retain_graph=True)[0] for score in scores]
    except Exception:  # noqa: BLE001  a later step names the reason
        return
    if len(gradients) != 2:  # the network returns another number of rows than images
        return
    others = torch.stack([gradients[0][1], gradients[1][0]])
    # The product of zero and an infinite derivative is NaN, without any dependence.
    if (others.isfinite() & (others != 0)).any():
        raise ExportError(DEPENDENT)


def _has_batch_of_one(value: Any) -> bool:
    """Tell whether dimension 0 has size 1, so that the images lie in another dimension."""
    size = value.meta["val"].shape[0]
    return isinstance(size, int) and size == 1
