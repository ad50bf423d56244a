"""Prune an ONNX graph to the nodes that some of its outputs need.

onnxruntime computes all nodes of a graph, even if a run requests only some of the outputs. Therefore the graph is
pruned before a session is created.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from seewhy.runtime.onnx_messages import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

# Operators with optional outputs, and the number of outputs that they need.
_NEEDED_OUTPUTS = {"MaxPool": 1, "BatchNormalization": 1, "Dropout": 1, "LayerNormalization": 1}


def prune(
    model: ModelProto,
    outputs: Iterable[str],
    given: Sequence[str] = (),
) -> ModelProto:
    """Return a new model that computes some outputs of a model and nothing else.

    The opset and the IR version stay the same. Inputs that are no longer needed are removed.

    Args:
        model: The model. It is not changed.
        outputs: Names of the outputs to compute.
        given: Names of outputs that become inputs: the graph starts at them instead of computing them. Nodes after them
            may read the batch size from the shape of an image; it is then read from the first of `given`, so that such
            a graph needs no images.

    Returns:
        The new model.

    Raises:
        KeyError: If the model has no such output; the argument is its name.
    """
    graph = model.graph
    found = {value.name: value for value in graph.output}
    wanted = [found[name] for name in outputs]
    starts = [found[name] for name in given]
    nodes, needed = needed_nodes(graph.node, [value.name for value in wanted])
    constants: list[TensorProto] = []
    if given:
        nodes, constants = _start_at(graph, nodes, list(given))
        nodes, needed = needed_nodes(nodes, [value.name for value in wanted])

    pruned = ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        producer_name=model.producer_name,
    )
    result = pruned.graph
    result.name = graph.name
    for node in nodes:
        _drop_unused_outputs(result.node.add(), node, needed)
    result.output.extend(wanted)
    result.input.extend(value for value in (*graph.input, *starts) if value.name in needed)
    result.initializer.extend(tensor for tensor in (*graph.initializer, *constants) if tensor.name in needed)
    result.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    result.value_info.extend(value for value in graph.value_info if value.name in needed)
    return pruned


def needed_nodes(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the nodes that some outputs depend on.

    Args:
        nodes: Nodes of a graph, in its order.
        outputs: Names of the outputs.

    Returns:
        The needed nodes in the same order, and the names of all values that they or the outputs use.
    """
    needed = set(outputs)
    kept = []
    # ONNX nodes are in topological order, so in reverse every use of a value comes before its producer.
    for node in reversed(nodes):
        if needed.intersection(filter(None, node.output)):
            kept.append(node)
            needed.update(_used_names(node))
    return kept[::-1], needed


def _used_names(node: NodeProto) -> Iterator[str]:
    """Yield the names of a node's inputs, and of all values that its subgraphs use."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in subgraph.output)
            for inner in subgraph.node:
                yield from _used_names(inner)


def _start_at(
    graph: GraphProto, source: Sequence[NodeProto], given: list[str]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes of `source` with `given` as inputs, and the constants that they need in addition."""
    shapes = _shapes(graph)
    behind = set(given)
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    for node in source:
        if behind.intersection(_used_names(node)):
            behind.update(node.output)
        elif _is_shape(node) and node.input[0] in shapes:
            made, fixed = _shape_of_batch(node, shapes[node.input[0]], given[0])
            nodes += made
            constants += fixed
            continue
        if set(given).intersection(node.output):
            node = _without_outputs(node, given)
        nodes.append(node)
    return nodes, constants


def _is_shape(node: NodeProto) -> bool:
    """Return True if a node is a plain Shape operator."""
    return node.op_type == "Shape" and not node.domain and len(node.input) == len(node.output) == 1


_BATCH = -1


def _shapes(graph: GraphProto) -> dict[str, list[int]]:
    """Return the shapes in which only the batch size is unknown; it is given as _BATCH."""
    values = (*graph.input, *graph.value_info, *graph.output)
    dims = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    batch = {shape[0] for value in graph.input if (shape := dims.get(value.name)) and isinstance(shape[0], str)}
    # PyTorch may use another name for the batch inside the graph. Only the batch size is dynamic, so if there is only
    # one other name, it is the batch.
    names = {dim for shape in dims.values() for dim in shape if isinstance(dim, str) and dim.isidentifier()}
    if len(names - batch) == 1:
        batch |= names
    known = {name: [_BATCH if dim in batch else dim for dim in shape] for name, shape in dims.items()}
    return {
        name: [dim for dim in shape if isinstance(dim, int)]
        for name, shape in known.items()
        if all(isinstance(dim, int) for dim in shape)
    }


def _shape_of_batch(node: NodeProto, shape: list[int], given: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes and constants that replace a Shape node whose input has `shape`, with the batch size of `given`."""
    [result] = node.output
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    chosen = shape[slice(attributes.get("start", 0), attributes.get("end"))]
    size = f"{result}/batch"
    constants = []
    parts = []
    for i, dim in enumerate(chosen):
        parts.append(size if dim == _BATCH else f"{result}/{i}")
        if dim != _BATCH:
            constants.append(_constant(parts[-1], [dim]))
    if not parts:  # the shape of a scalar
        parts = [f"{result}/none"]
        constants.append(_constant(parts[0], []))
    nodes = [_node("Concat", parts, result, axis=0)]
    if size in parts:
        nodes.insert(0, _node("Shape", [given], size, start=0, end=1))
    return nodes, constants


def _node(operator: str, inputs: list[str], output: str, **integers: int) -> NodeProto:
    """Return a node with integers as attributes, named after its output."""
    attributes = [AttributeProto(name=name, type=AttributeProto.INT, i=value) for name, value in integers.items()]
    return NodeProto(op_type=operator, input=inputs, output=[output], name=output, attribute=attributes)


def _constant(name: str, values: list[int]) -> TensorProto:
    """Return an int64 constant of one dimension."""
    return TensorProto(name=name, data_type=TensorProto.INT64, dims=[len(values)], int64_data=values)


def _without_outputs(node: NodeProto, given: Sequence[str]) -> NodeProto:
    """Return a node with new names for its outputs in `given`, because these are now inputs of the graph."""
    changed = NodeProto()
    changed.CopyFrom(node)
    for i, name in enumerate(node.output):
        if name in given:
            changed.output[i] = f"{name}/computed"
    return changed


def _drop_unused_outputs(target: NodeProto, node: NodeProto, needed: set[str]) -> None:
    """Copy `node` to `target` without unused optional outputs at the end of its list.

    MaxPool uses onnxruntime's blocked layout only without its output Indices.
    """
    target.CopyFrom(node)
    while len(target.output) > _NEEDED_OUTPUTS.get(node.op_type, len(target.output)):
        if target.output[-1] in needed:
            return
        del target.output[-1]
