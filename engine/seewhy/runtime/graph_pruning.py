"""Prune an ONNX graph to the nodes that some of its outputs need.

onnxruntime computes all nodes of a graph, even if a run requests only some of the outputs. Therefore the graph is
pruned before a session is created.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

LARGE = 2**16
"""Smallest size of a weight that is stored outside the graph, in bytes."""


def prune(
    model: onnx.ModelProto,
    outputs: Iterable[str],
    given: Sequence[str] = (),
    separate: dict[str, NDArray[Any]] | None = None,
    external: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """Return a new model that computes some outputs of a model and nothing else.

    The opset and the IR version stay the same. Inputs that are no longer needed are removed.

    Args:
        model: The model. It is not changed.
        outputs: Names of the outputs to compute.
        given: Names of outputs that become inputs: the graph starts at them instead of computing them. Nodes after them
            may read the batch size from the shape of an image; it is then read from the first of `given`, so that such
            a graph needs no images.
        separate: Dict to which large weights are added by name, for onnxruntime's
            `SessionOptions.add_external_initializers`. The new model refers to them as external data, and they are not
            copied into it. None keeps them in the model.
        external: Weights that are stored outside the model, by name. They are always added to `separate`.

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
    constants: list[onnx.TensorProto] = []
    if given:
        nodes, constants = _start_at(graph, nodes, list(given))
        nodes, needed = needed_nodes(nodes, [value.name for value in wanted])

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
    result.input.extend(value for value in (*graph.input, *starts) if value.name in needed)
    for tensor in (*graph.initializer, *constants):
        if tensor.name not in needed:
            continue
        values = (external or {}).get(tensor.name)
        if values is None and separate is not None:
            values = _large_weight(tensor)
        if values is None or separate is None:
            result.initializer.append(tensor)
        else:
            separate[tensor.name] = values
            named = result.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            named.data_location = onnx.TensorProto.EXTERNAL
            named.external_data.add(key="location", value=tensor.name)
    result.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    result.value_info.extend(value for value in graph.value_info if value.name in needed)
    return pruned


def _large_weight(tensor: onnx.TensorProto) -> NDArray[np.float32] | None:
    """Return the values of a large float32 tensor without copying them, or None for other and damaged tensors."""
    size = math.prod(tensor.dims) * 4
    known = tensor.data_type == onnx.TensorProto.FLOAT and all(dim > 0 for dim in tensor.dims)
    if not known or size < LARGE or len(tensor.raw_data) != size:
        return None
    return np.frombuffer(tensor.raw_data, np.dtype("<f4")).reshape(tensor.dims)


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
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


def _used_names(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of a node's inputs, and of all values that its subgraphs use."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in subgraph.output)
            for inner in subgraph.node:
                yield from _used_names(inner)


def _start_at(
    graph: onnx.GraphProto, source: Sequence[onnx.NodeProto], given: list[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes of `source` with `given` as inputs, and the constants that they need in addition."""
    shapes = _shapes(graph)
    behind = set(given)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
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


def _is_shape(node: onnx.NodeProto) -> bool:
    """Return True if a node is a plain Shape operator."""
    return node.op_type == "Shape" and not node.domain and len(node.input) == len(node.output) == 1


_BATCH = -1


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
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


def _shape_of_batch(
    node: onnx.NodeProto, shape: list[int], given: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
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
            constants.append(numpy_helper.from_array(np.array([dim], np.int64), parts[-1]))
    if not parts:  # the shape of a scalar
        parts = [f"{result}/none"]
        constants.append(numpy_helper.from_array(np.zeros(0, np.int64), parts[0]))
    nodes = [helper.make_node("Concat", parts, [result], name=result, axis=0)]
    if size in parts:
        nodes.insert(0, helper.make_node("Shape", [given], [size], name=size, start=0, end=1))
    return nodes, constants


def _without_outputs(node: onnx.NodeProto, given: Sequence[str]) -> onnx.NodeProto:
    """Return a node with new names for its outputs in `given`, because these are now inputs of the graph."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for i, name in enumerate(node.output):
        if name in given:
            changed.output[i] = f"{name}/computed"
    return changed


def _drop_unused_outputs(
    target: onnx.NodeProto, node: onnx.NodeProto, needed: set[str], opsets: dict[str, int]
) -> None:
    """Copy `node` to `target` without unused optional outputs at the end of its list.

    MaxPool uses onnxruntime's blocked layout only without its output Indices.
    """
    target.CopyFrom(node)
    if len(node.output) < 2 or node.output[-1] in needed:
        return
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    try:
        formal = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain).outputs
    except onnx.defs.SchemaError:
        return  # an operator that onnx does not know; keep its outputs
    while len(target.output) > 1:
        last = len(target.output) - 1
        if target.output[last] in needed or last >= len(formal) or formal[last].option != optional:
            return
        del target.output[last]
