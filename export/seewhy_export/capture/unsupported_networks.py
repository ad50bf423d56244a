"""Checks for networks whose result for an image is not a function of that image alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportError
from seewhy_export._shared.torch_internals import OpOverload, schema_of
from seewhy_export.capture.node_origins import describe_node

aten: Any = torch.ops.aten

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


def _has_batch_of_one(value: Any) -> bool:
    """Tell whether dimension 0 has size 1, so that the images lie in another dimension."""
    size = value.meta["val"].shape[0]
    return isinstance(size, int) and size == 1
