"""Prune an ONNX graph to the outputs wanted, and to the values that are given.

onnxruntime computes every node of a graph, whichever outputs a run asks for, so what a method does not need has to go
before the session is made.
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
"""Smallest size of a weight that is kept apart from the graph, in bytes."""


def prune(
    model: onnx.ModelProto,
    outputs: Iterable[str],
    given: Sequence[str] = (),
    apart: dict[str, NDArray[Any]] | None = None,
    external: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """Return a new model that computes `outputs` and nothing else. Opset and IR version stay.

    The outputs named in `given` become inputs: the graph starts at them instead of computing them. What is behind them
    in the graph may still look at the shape of an image, for the size of the batch; that is read off the first of
    `given`, so that a graph which only does that needs no images.

    Inputs that nothing needs any more are left out, so look at the result's inputs before feeding it.

    With `apart`, large weights are not copied into the result, which then only names them, as external data. They are
    put into `apart`, by name, for onnxruntime's `SessionOptions.add_external_initializers`. The tensors in `external`,
    by name, lie outside the model and are always put there.

    Raises:
        KeyError: an output is not there; the argument is its name.
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
        if values is None and apart is not None:
            values = _large_weight(tensor)
        if values is None or apart is None:
            result.initializer.append(tensor)
        else:
            apart[tensor.name] = values
            named = result.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            named.data_location = onnx.TensorProto.EXTERNAL
            named.external_data.add(key="location", value=tensor.name)
    result.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    result.value_info.extend(value for value in graph.value_info if value.name in needed)
    return pruned


def _large_weight(tensor: onnx.TensorProto) -> NDArray[np.float32] | None:
    """Return the values of a large float32 tensor without copying them; None for all others, and for damaged ones."""
    size = math.prod(tensor.dims) * 4
    known = tensor.data_type == onnx.TensorProto.FLOAT and all(dim > 0 for dim in tensor.dims)
    if not known or size < LARGE or len(tensor.raw_data) != size:
        return None
    return np.frombuffer(tensor.raw_data, np.dtype("<f4")).reshape(tensor.dims)


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that `outputs` depend on, in graph order, and every value name that they or the outputs use."""
    needed = set(outputs)
    kept = []
    # ONNX nodes are in topological order, so one walk backwards meets every use of a value before its producer.
    for node in reversed(nodes):
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


def _start_at(
    graph: onnx.GraphProto, source: Sequence[onnx.NodeProto], given: list[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes of `source` where `given` are inputs, and constants that they need besides the graph's own."""
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
    return node.op_type == "Shape" and not node.domain and len(node.input) == len(node.output) == 1


_BATCH = -1


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The shapes that are known but for the batch's size, which is _BATCH."""
    values = (*graph.input, *graph.value_info, *graph.output)
    dims = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    batch = {shape[0] for value in graph.input if (shape := dims.get(value.name)) and isinstance(shape[0], str)}
    # Inside, PyTorch may call the batch by another name. Nothing but the batch is free, so a lone name is that.
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
    """Nodes and constants that stand for `node`, the Shape of a value of `shape`; the batch is that of `given`."""
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
    if not parts:  # of a scalar
        parts = [f"{result}/none"]
        constants.append(numpy_helper.from_array(np.zeros(0, np.int64), parts[0]))
    nodes = [helper.make_node("Concat", parts, [result], name=result, axis=0)]
    if size in parts:
        nodes.insert(0, helper.make_node("Shape", [given], [size], name=size, start=0, end=1))
    return nodes, constants


def _without_outputs(node: onnx.NodeProto, given: Sequence[str]) -> onnx.NodeProto:
    """`node` with its outputs in `given` under another name: they come from outside now."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for i, name in enumerate(node.output):
        if name in given:
            changed.output[i] = f"{name}/computed"
    return changed


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
