"""Parameters of a joint graph, grouped by the module that uses them, from the output down to the stem."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch.fx import Graph, Node

from seewhy.contract.metadata import ParameterGroup
from seewhy_export.capture.node_origins import module_path


def group_parameters(graph: Graph, weights: Collection[str], parameters: Collection[str]) -> tuple[ParameterGroup, ...]:
    """Group stored tensors by the module that first uses them together with the images.

    A kernel into which a batch norm is folded, and the bias that comes with it, are used by the convolution.

    Args:
        graph: Joint graph with folded constants.
        weights: Names of the weights, in the order of the graph's first placeholders.
        parameters: Names of the weights to group.

    Returns:
        The groups in the reverse order of their first use: the classifier first, the stem last.
    """
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    names = dict(zip(placeholders, weights, strict=False))
    # Constant node -> the weights that it is computed from. The dicts keep the order.
    constants: dict[Node, dict[str, None]] = {node: {name: None} for node, name in names.items()}
    modules: dict[str, str] = {}
    for node in graph.nodes:
        inputs = node.all_input_nodes
        used = {name: None for one in inputs for name in constants.get(one, ())}
        if inputs and node.op == "call_function" and all(one in constants for one in inputs):
            constants[node] = used
        else:
            for name in used:
                modules.setdefault(name, module_path(node))
    return _groups({name: module for name, module in modules.items() if name in parameters})


def _groups(modules: Mapping[str, str]) -> tuple[ParameterGroup, ...]:
    """Return the groups of tensors whose modules are given in the order of their first use."""
    tensors: dict[str, list[str]] = {}
    for name, module in modules.items():
        tensors.setdefault(module, []).append(name)
    return tuple(ParameterGroup(module, tuple(names)) for module, names in reversed(tensors.items()))
