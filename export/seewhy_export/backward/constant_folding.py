"""Folding of constants: values that depend on weights alone are computed once, at export.

A value that comes from a parameter is stored once, so that changing the stored values changes the forward and the
backward pass alike. Flips, transposes and slices of it remain operators, which a runtime computes once, when it loads
the file. If a value is needed both as it is and in a computed form, the computation remains an operator, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten: Any = torch.ops.aten

# Limit in elements for computed tensors other than element-wise results, and for rearranged constants.
_LARGEST_COMPUTED = 1 << 14

_REARRANGING = {
    aten.alias.default,
    aten.cat.default,
    aten.clone.default,
    aten.constant_pad_nd.default,
    aten.diagonal.default,
    aten.embedding.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.flip.default,
    aten.gather.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.permute.default,
    aten.repeat.default,
    aten.reshape.default,
    aten.roll.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.stack.default,
    aten.t.default,
    aten.transpose.int,
    aten.unfold.default,
    aten.unsqueeze.default,
    aten.view.default,
    aten._to_copy.default,
    aten._unsafe_view.default,
}
"""Operators whose results hold elements of their tensors, unchanged, and perhaps zeros."""


def compute_constants(graph: Graph, weights: dict[str, Tensor], parameters: Collection[str]) -> tuple[str, ...]:
    """Replace operators on weights by stored constants, computed in float64 and rounded once.

    Args:
        graph: Joint graph, which is changed. Its first placeholders are the weights.
        weights: Weights by name, in the order of the placeholders; it is changed along with the graph.
        parameters: Names of the weights that are parameters; the others are buffers and constants.

    Returns:
        Names of the stored tensors that are parameters, or computed from parameters.
    """
    placeholders = dict(zip(_placeholders(graph), weights, strict=False))
    learned = {node for node, name in placeholders.items() if name in parameters}
    known, derived = _constant_nodes(graph, set(placeholders), learned)
    bases = _independent(derived, known)
    names = {placeholders[node] for node in bases if node in placeholders}
    names |= set(_store(graph, weights, [node for node in derived if node in bases and node not in placeholders]))

    placeholders = dict(zip(_placeholders(graph), weights, strict=False))
    fixed = {node for node, name in placeholders.items() if name not in names}
    known, _ = _constant_nodes(graph, fixed, set())
    _store(graph, weights, [n for n in graph.nodes if n in known and n not in fixed and not known.issuperset(n.users)])
    return tuple(name for name in weights if name in names)


def _placeholders(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _constant_nodes(graph: Graph, stored: set[Node], learned: set[Node]) -> tuple[set[Node], list[Node]]:
    """Return all nodes that are stored or worth computing, and, in order, those of them that depend on `learned`."""
    known, derived = set(stored), dict.fromkeys(learned)
    for node in graph.nodes:
        result = node.meta.get("val")
        inputs = node.all_input_nodes
        if node.op != "call_function" or not isinstance(result, Tensor) or not inputs or not known.issuperset(inputs):
            continue
        from_parameters = not derived.keys().isdisjoint(inputs)
        pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
        if pointwise or result.numel() <= _LARGEST_COMPUTED or (from_parameters and node.target in _REARRANGING):
            known.add(node)
            if from_parameters:
                derived[node] = None
    return known, list(derived)


def _independent(derived: list[Node], known: set[Node]) -> set[Node]:
    """Choose which of the values that depend on parameters are stored, so that none is computed from another one."""
    members = set(derived)

    def sources(nodes: Iterable[Node]) -> set[Node]:
        """Return the nodes that a runtime rearranges to get `nodes`."""
        found: set[Node] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node.target in _REARRANGING:
                waiting += members.intersection(node.all_input_nodes)
            else:
                found.add(node)
        return found

    chosen = sources(node for node in derived if not known.issuperset(node.users))
    while True:
        below: set[Node] = set()
        for node in derived:
            if any(one in chosen or one in below for one in node.all_input_nodes):
                below.add(node)
        repeated = chosen & below
        if not repeated:
            return chosen
        chosen -= repeated
        for node in repeated:
            chosen |= sources(members.intersection(node.all_input_nodes))


def _store(graph: Graph, weights: dict[str, Tensor], nodes: list[Node]) -> list[str]:
    """Replace nodes by stored weights, drop everything that is then unused, and return the names of the weights."""
    placeholders = _placeholders(graph)
    stored = dict(zip(placeholders, weights.values(), strict=False))
    # Each is computed separately, since float64 takes twice the memory, and all before the graph changes.
    constants = {node: _compute(node, stored).to(node.meta["val"].dtype).contiguous() for node in nodes}
    images = placeholders[len(weights)]
    names = []
    for node, value in constants.items():
        with graph.inserting_before(images):
            name = f"constant_{node.name}"
            constant = graph.placeholder(name)
        constant.meta["val"] = node.meta["val"]
        weights[name] = value
        names.append(name)
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()
    for name, node in zip(list(weights), _placeholders(graph), strict=False):
        if not node.users:
            del weights[name]
            graph.erase_node(node)
    return names


def _compute(node: Node, stored: dict[Node, Tensor]) -> Any:
    """Compute a node's value from the stored weights, in float64."""
    if node in stored:
        weight = stored[node]
        return weight.double() if weight.is_floating_point() else weight
    operator: Any = node.target
    arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: _compute(n, stored))
    return operator(*arguments, **options)
