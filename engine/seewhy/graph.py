"""Prune an ONNX graph to the outputs wanted.

onnxruntime computes every node of a graph, whichever outputs a run asks for, so what a method does not need has to go
before the session is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def prune(model: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """Return a new model that computes `outputs` and nothing else. Opset and IR version stay.

    Inputs that nothing needs any more are left out, so look at the result's inputs before feeding it.

    Raises:
        KeyError: an output is not there; the argument is its name.
    """
    graph = model.graph
    found = {value.name: value for value in graph.output}
    wanted = [found[name] for name in outputs]
    nodes, needed = _needed_nodes(graph, [value.name for value in wanted])

    pruned = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        producer_name=model.producer_name,
    )
    result = pruned.graph
    result.name = graph.name
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    for node in nodes:
        _drop_unused_outputs(result.node.add(), node, needed, opsets)
    result.output.extend(wanted)
    result.input.extend(value for value in graph.input if value.name in needed)
    result.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    result.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    result.value_info.extend(value for value in graph.value_info if value.name in needed)
    return pruned


def _needed_nodes(graph: onnx.GraphProto, outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that `outputs` depend on, in graph order, and every value name that they or the outputs use."""
    needed = set(outputs)
    kept = []
    # ONNX nodes are in topological order, so one walk backwards meets every use of a value before its producer.
    for node in reversed(graph.node):
        if needed.intersection(filter(None, node.output)):
            kept.append(node)
            needed.update(_used_names(node))
    return kept[::-1], needed


def _used_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads: its inputs, and what its subgraphs take from outside or define themselves."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in subgraph.output)
            for inner in subgraph.node:
                yield from _used_names(inner)


def _drop_unused_outputs(
    target: onnx.NodeProto, node: onnx.NodeProto, needed: set[str], opsets: dict[str, int]
) -> None:
    """Copy `node` into `target` without the optional outputs at the end of its list that nothing uses.

    MaxPool without its Indices runs in onnxruntime's blocked layout; with them it does not.
    """
    target.CopyFrom(node)
    if len(node.output) < 2 or node.output[-1] in needed:
        return
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    try:
        formal = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain).outputs
    except onnx.defs.SchemaError:
        return  # an operator that onnx does not know: leave it as it is
    while len(target.output) > 1:
        last = len(target.output) - 1
        if target.output[last] in needed or last >= len(formal) or formal[last].option != optional:
            return
        del target.output[last]
