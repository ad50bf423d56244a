"""Networks whose answer for an image is not a function of that image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportError
from seewhy_export._shared.torch_internals import OpOverload, schema_of
from seewhy_export.capture.node_origins import described

aten: Any = torch.ops.aten

_SWITCHES = ("train", "training", "dropout_p")
"""Arguments by which operators such as dropout draw, or do not."""


def refuse_randomness(nodes: Iterable[Node]) -> None:
    """Raises: ExportError: one of the nodes draws random numbers."""
    for node in nodes:
        if _draws(node):
            raise ExportError(
                f"{described(node)} draws random numbers in evaluation mode too, so that two runs would disagree; "
                f"switch that off there"
            )


def _draws(node: Node) -> bool:
    overload = node.target
    if not isinstance(overload, OpOverload) or torch.Tag.nondeterministic_seeded not in overload.tags:
        return False
    for position, argument in enumerate(schema_of(overload).arguments):
        if argument.name in _SWITCHES:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            return bool(argument.default_value if given is None else given)
    return True


def refuse_batch_statistics(nodes: Iterable[Node]) -> None:
    """Raises: ExportError: one of the nodes, which depend on the images, is a batch norm in training mode."""
    for node in nodes:
        training = node.args[5] if len(node.args) > 5 else node.kwargs.get("training", False)
        if node.target is aten.batch_norm.default and training and not _is_one(node.args[0]):
            raise ExportError(
                f"{described(node)} takes the statistics of the batch, so an image's answer depends on the others; "
                f"give it running statistics (track_running_stats=True), or use a group norm"
            )


def _is_one(value: Any) -> bool:
    """Whether the images stand in another dimension, so that the batch of this norm is one."""
    size = value.meta["val"].shape[0]
    return isinstance(size, int) and size == 1
