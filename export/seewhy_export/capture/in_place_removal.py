"""Replacement of in-place operators in a traced graph by their functional counterparts, where that is safe.

torch.export keeps operators such as `relu_`. PyTorch's own functionalization handles all of them, but traces the whole
graph once more, which takes as long as the first trace. An in-place operator nearly always works on a value that
nothing else reads afterwards. It is then enough to exchange the operator.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from seewhy_export._shared.torch_internals import (
    GRAD_MODE_BLOCK,
    OpOverload,
    is_composite,
    overload_name,
    schema_of,
)

_RETURNING_NEW_MEMORY = {
    f"aten::{name}"
    for name in (
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "batch_norm",
        "conv2d",
        "group_norm",
        "instance_norm",
        "layer_norm",
        "linear",
        "matmul",
        "max_pool2d",
        "softmax",
    )
}
"""Composite operators whose result is always new memory."""

_OTHER_NAMESAKES = {
    "copy",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
    "logical_and",
    "logical_or",
    "logical_xor",
    "logical_not",
}
"""In-place operators whose namesakes do something else: `copy` has no derivative, comparisons return booleans."""


def detach_no_grad(graph: Graph) -> None:
    """Detach the results of `torch.no_grad()` blocks.

    Decomposing the graph inlines such blocks, and gradients would pass through them.

    Args:
        graph: Traced graph, which is changed.
    """
    for node in list(graph.nodes):
        if node.target is not GRAD_MODE_BLOCK or node.args[0] is not False:
            continue
        for result in list(node.users):
            with graph.inserting_after(result):
                detached = graph.call_function(torch.ops.aten.detach.default, (result,))
            detached.meta = dict(result.meta)
            result.replace_all_uses_with(detached, delete_user_cb=lambda user, own=detached: user is not own)


def make_functional(graph: Graph) -> bool:
    """Replace every in-place operator by its functional counterpart.

    Args:
        graph: Traced graph, which is changed.

    Returns:
        True if all were replaced. False, with the graph unchanged, if one writes to a value that is read elsewhere.
    """
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    if not all(isinstance(n.target, OpOverload) or _is_python_arithmetic(n.target) for n in nodes):
        return False  # A subgraph (autocast, no_grad) may hold in-place operators too.
    position = {node: index for index, node in enumerate(graph.nodes)}
    owners = _owners(graph)
    in_place = [node for node in nodes if _writes(node)]
    for node in in_place:
        if _functional_counterpart(node) is None or not _is_alone(node, owners, position):
            return False
    for node in in_place:
        _replace(graph, node, position)
    return True


def _is_python_arithmetic(target: Any) -> bool:
    """Tell whether a target is a Python function on sizes, such as `operator.mul`."""
    return getattr(target, "__module__", "") in ("_operator", "math", "torch") and callable(target)


def _writes(node: Node) -> bool:
    """Tell whether a node's operator writes to one of its arguments."""
    return isinstance(node.target, OpOverload) and schema_of(node.target).is_mutable


def _functional_counterpart(node: Node) -> Any:
    """Return `relu` for `relu_`, which takes the same arguments; None if there is no such operator."""
    overload: Any = node.target
    schema = schema_of(overload)
    namespace, name = schema.name.split("::")
    arguments = schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    if not name.endswith("_") or written != [arguments[0].name] or name[:-1] in _OTHER_NAMESAKES:
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    counterpart = getattr(packet, overload_name(overload), None)
    if counterpart is None or schema_of(counterpart).is_mutable:
        return None
    # The first argument may be called `self` in one and `input` in the other.
    same = [a.name for a in schema_of(counterpart).arguments][1:] == [a.name for a in arguments][1:]
    return counterpart if same else None


def _owners(graph: Graph) -> dict[Node, Node]:
    """Return, for every value, the first value that lies in the same memory."""
    owners: dict[Node, Node] = {}
    for node in graph.nodes:
        source = next((n for n in node.all_input_nodes if _shares_memory(node, n)), None)
        owners[node] = node if source is None else owners[source]
    return owners


def _shares_memory(node: Node, source: Node) -> bool:
    """Tell whether the result of a node may lie in the memory of one of its inputs."""
    if node.target is operator.getitem:
        return True
    if isinstance(node.target, OpOverload):
        schema = schema_of(node.target)
        aliases = {name for r in schema.returns if r.alias_info for name in r.alias_info.before_set}
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if value is source and argument.alias_info and aliases & set(argument.alias_info.before_set):
                return True
        # Composite operators may return their input itself although their schema does not say so, as dropout does.
        return is_composite(node.target) and schema.name not in _RETURNING_NEW_MEMORY
    return False


def _is_alone(node: Node, owners: dict[Node, Node], position: dict[Node, int]) -> bool:
    """Tell whether, after `node`, the memory that it writes to is read only through its result."""
    written = node.args[0]
    if not isinstance(written, Node) or owners[written].op != "call_function":
        return False  # It is an input or a weight.
    return all(
        other in (node, written)
        or position[other] > position[node]
        or all(position[user] <= position[node] for user in other.users)
        for other, owner in owners.items()
        if owner is owners[written]
    )


def _replace(graph: Graph, node: Node, position: dict[Node, int]) -> None:
    """Exchange one in-place node for a functional one."""
    written = node.args[0]
    assert isinstance(written, Node)
    with graph.inserting_before(node):
        functional = graph.call_function(_functional_counterpart(node), node.args, dict(node.kwargs))
    functional.meta = dict(node.meta)
    position[functional] = position[node]
    later = [user for user in written.users if position[user] > position[node]]
    for user in later:
        user.replace_input_with(written, functional)
    node.replace_all_uses_with(functional)
    graph.erase_node(node)
