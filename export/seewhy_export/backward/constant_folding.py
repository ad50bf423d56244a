"""Folding of constants: values that depend on weights alone are computed once, at export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

# Limit in elements for tensors that are only rearranged (flipped, transposed). Larger ones stay operators: a runtime
# rearranges them once, when it loads the file, and the file does not store them twice.
_LARGEST_REARRANGED = 1 << 14


def compute_constants(graph: Graph, weights: dict[str, Tensor]) -> None:
    """Replace operators on weights by stored constants, computed in float64 and rounded once.

    Args:
        graph: Joint graph, which is changed. Its first placeholders are the weights.
        weights: Weights by name, in the order of the placeholders; it is changed along with the graph.
    """
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    stored = dict(zip(placeholders, weights.values(), strict=False))
    known = set(stored)
    for node in graph.nodes:
        if node.op == "call_function" and _is_constant(node, known):
            known.add(node)
    needed = [n for n in graph.nodes if n in known and n not in stored and any(u not in known for u in n.users)]
    # Each is computed separately, since float64 takes twice the memory, and all before the graph changes.
    constants = {node: _compute(node, stored).to(node.meta["val"].dtype).contiguous() for node in needed}
    images = placeholders[len(weights)]
    for node, value in constants.items():
        with graph.inserting_before(images):
            name = f"constant_{node.name}"
            constant = graph.placeholder(name)
        constant.meta["val"] = node.meta["val"]
        weights[name] = value
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()
    for name, node in zip(list(weights), [n for n in graph.nodes if n.op == "placeholder"], strict=False):
        if not node.users:
            del weights[name]
            graph.erase_node(node)


def _is_constant(node: Node, known: set[Node]) -> bool:
    """Tell whether a node is one tensor that is computed from known values alone and is worth storing."""
    result = node.meta.get("val")
    if not isinstance(result, Tensor) or not node.all_input_nodes or not known.issuperset(node.all_input_nodes):
        return False
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    return pointwise or result.numel() <= _LARGEST_REARRANGED


def _compute(node: Node, stored: dict[Node, Tensor]) -> Any:
    """Compute a node's value from the stored weights, in float64."""
    if node in stored:
        weight = stored[node]
        return weight.double() if weight.is_floating_point() else weight
    operator: Any = node.target
    arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: _compute(n, stored))
    return operator(*arguments, **options)
