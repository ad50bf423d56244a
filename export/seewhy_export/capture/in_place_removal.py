"""In-place operators of a traced graph, replaced by their functional twins where that is plainly the same.

torch.export keeps `relu_` and the like. PyTorch's own functionalization handles them all, by tracing the whole graph
once more, which takes as long as the first time. Nearly always an in-place operator works on a value that nothing else
reads afterwards, and then a renaming does.
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

FRESH = {
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
"""Operators made of others whose result is always new memory."""


_OTHER_TWINS = {"copy", "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_xor", "logical_not"}
"""In-place operators whose twins are something else: a copy has no derivative, comparisons give booleans."""


def detach_no_grad(graph: Graph) -> None:
    """Detach what leaves a `torch.no_grad()` block; taken apart, the block would pass gradients like any other code."""
    for node in list(graph.nodes):
        if node.target is not GRAD_MODE_BLOCK or node.args[0] is not False:
            continue
        for result in list(node.users):
            with graph.inserting_after(result):
                detached = graph.call_function(torch.ops.aten.detach.default, (result,))
            detached.meta = dict(result.meta)
            result.replace_all_uses_with(detached, delete_user_cb=lambda user, own=detached: user is not own)


def make_functional(graph: Graph) -> bool:
    """Replace every in-place operator; change nothing and return False where one writes to what is read elsewhere."""
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    if not all(isinstance(n.target, OpOverload) or _is_python_arithmetic(n.target) for n in nodes):
        return False  # a subgraph (autocast, no_grad): its inside would have to be looked at as well
    position = {node: index for index, node in enumerate(graph.nodes)}
    owners = _owners(graph)
    in_place = [node for node in nodes if _writes(node)]
    for node in in_place:
        if _functional_twin(node) is None or not _is_alone(node, owners, position):
            return False
    for node in in_place:
        _replace(graph, node, position)
    return True


def _is_python_arithmetic(target: Any) -> bool:
    return getattr(target, "__module__", "") in ("_operator", "math", "torch") and callable(target)


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and schema_of(node.target).is_mutable


def _functional_twin(node: Node) -> Any:
    """`relu` for `relu_`, with the same arguments; None where there is none."""
    overload: Any = node.target
    schema = schema_of(overload)
    namespace, name = schema.name.split("::")
    arguments = schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    if not name.endswith("_") or written != [arguments[0].name] or name[:-1] in _OTHER_TWINS:
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    twin = getattr(packet, overload_name(overload), None)
    if twin is None or schema_of(twin).is_mutable:
        return None
    # The first may be called `self` in one and `input` in the other.
    same = [a.name for a in schema_of(twin).arguments][1:] == [a.name for a in arguments][1:]
    return twin if same else None


def _owners(graph: Graph) -> dict[Node, Node]:
    """For every value, the first one that lives in the same memory."""
    owners: dict[Node, Node] = {}
    for node in graph.nodes:
        source = next((n for n in node.all_input_nodes if _shares_memory(node, n)), None)
        owners[node] = node if source is None else owners[source]
    return owners


def _shares_memory(node: Node, source: Node) -> bool:
    if node.target is operator.getitem:
        return True
    if isinstance(node.target, OpOverload):
        schema = schema_of(node.target)
        aliases = {name for r in schema.returns if r.alias_info for name in r.alias_info.before_set}
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if value is source and argument.alias_info and aliases & set(argument.alias_info.before_set):
                return True
        # Operators made of others may return their input itself without saying so, as dropout does.
        return is_composite(node.target) and schema.name not in FRESH
    return False


def _is_alone(node: Node, owners: dict[Node, Node], position: dict[Node, int]) -> bool:
    """Whether nothing but what is renamed reads, after `node`, the memory that it writes to."""
    written = node.args[0]
    if not isinstance(written, Node) or owners[written].op != "call_function":
        return False  # an input or a weight
    return all(
        other in (node, written)
        or position[other] > position[node]
        or all(position[user] <= position[node] for user in other.users)
        for other, owner in owners.items()
        if owner is owners[written]
    )


def _replace(graph: Graph, node: Node, position: dict[Node, int]) -> None:
    written = node.args[0]
    assert isinstance(written, Node)
    with graph.inserting_before(node):
        twin = graph.call_function(_functional_twin(node), node.args, dict(node.kwargs))
    twin.meta = dict(node.meta)
    position[twin] = position[node]
    later = [user for user in written.users if position[user] > position[node]]
    for user in later:
        user.replace_input_with(written, twin)
    node.replace_all_uses_with(twin)
    graph.erase_node(node)
