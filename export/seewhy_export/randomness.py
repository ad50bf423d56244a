"""Networks that draw random numbers in evaluation mode, which no reference can be held to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import Node

from seewhy.errors import ExportError

from .origins import described

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
    if not isinstance(overload, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in overload.tags:
        return False
    for position, argument in enumerate(overload._schema.arguments):
        if argument.name in _SWITCHES:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            return bool(argument.default_value if given is None else given)
    return True
