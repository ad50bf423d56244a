"""Reading an ONNX file that somebody else made: whole, inside its own folder, and of a form that can be converted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, inliner

from seewhy._shared.regular_files import open_regular
from seewhy.contract import constants as contract
from seewhy.errors import ExportError
from seewhy_export._shared.messages import first_few, one_line
from seewhy_export.sources.onnx_import.tensors import (
    FLOATS,
    check_external,
    check_size,
    external_files,
    parts,
    tensor_value,
)

OLDEST_OPSET = 7
"""From here on, operators broadcast as NumPy does."""

_LARGEST_FILE = 2**31 - 1
"""Size of the largest file in bytes: no message of protobuf may be larger."""
_LARGEST_INLINED = 2**31
"""Size in bytes of the largest graph that functions may become; functions that call each other grow exponentially."""
_NODE_SIZE = 2**12
"""Bytes that each node counts as there, at least: its Python objects, and the time that it takes."""
_DEEPEST_CALL = 100
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Input:
    """The images, as the file declares them."""

    name: str
    batch: int | None
    """None where the file leaves it open."""
    channels: int | None
    size: tuple[int | None, int | None]
    """(H, W) in pixels."""
    channels_last: bool
    element_type: int


@dataclass(frozen=True)
class OnnxFile:
    """A graph of operators, cut to what the chosen output needs."""

    path: Path
    model: ModelProto
    """The graph from the images to `output`, and nothing else. Weights beside the file are left there."""
    opset: int
    input: Input
    output: str
    nodes: tuple[NodeProto, ...]
    constants: dict[str, NDArray[np.generic]]
    half: bool
    """Whether it computes in half precision anywhere."""

    def where(self, node: NodeProto) -> str:
        """How messages name a node."""
        return f"{self.path}: node {node_name(node)!r} ({node.op_type})"


def node_name(node: NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def read_onnx(path: Path, head: str | int | None = None) -> OnnxFile:
    """Read the file at `path`.

    Args:
        head: which output holds the logits: a name, also of a value inside the graph, or an index. None takes the only
            one.

    Raises:
        ExportError: the file is missing, damaged, reaches outside its folder, has another form than images in and
            logits out, or is one that SeeWhy wrote.
    """
    model = parse(path)
    if not all(isinstance(text, str) for text in _texts(model)):
        raise ExportError(f"{path}: not an ONNX file, or a damaged one: a name in it is not UTF-8")
    if any(entry.key.startswith(contract.KEY_PREFIX) for entry in model.metadata_props):
        raise ExportError(f"{path}: already a SeeWhy file; it explains itself, with `seewhy explain {path}`")
    opset = _opset(path, model)
    check_external(path, model)
    model = _inlined(path, model)
    graph = model.graph
    output = _output(path, graph, head)
    nodes = _needed(graph, output)
    _refuse_subgraphs(path, nodes)
    for node in nodes:
        for tensor in parts(node, TensorProto):
            check_size(path, tensor)
    constants = _constants(path, graph, nodes)
    images = _input(path, graph, nodes, constants, output)
    half = any(array.dtype == np.float16 for array in constants.values()) or images.element_type != TensorProto.FLOAT
    _cut(model, nodes, {images.name, *constants}, output)
    return OnnxFile(path, model, opset, images, output, nodes, constants, half)


def parse(path: Path) -> ModelProto:
    """Read the ONNX file at `path`, without the weights that lie beside it.

    Raises:
        ExportError: The file is missing, not regular, too large, or not ONNX.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_FILE:
                raise ExportError(f"{path}: not an ONNX file: it has {size} bytes, and {_LARGEST_FILE} are the most")
            content = file.read(size)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError among them, whose module changes between protobuf versions
        raise ExportError(f"{path}: not an ONNX file, or a damaged one: {one_line(error)}") from error


def _texts(model: ModelProto) -> Iterator[Any]:
    """Yield every text that is looked at; bytes where it is not UTF-8."""
    yield from (entry.key for entry in model.metadata_props)
    yield from (entry.domain for entry in model.opset_import)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    for node in parts(model, NodeProto):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for tensor in parts(model, TensorProto):
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))
    yield from (value.name for value in (*model.graph.input, *model.graph.output))


def _opset(path: Path, model: ModelProto) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    if opset is None:
        raise ExportError(f"{path}: not an ONNX file, or a damaged one: it names no operator set")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(
            f"{path}: written in opset {opset}; {OLDEST_OPSET} to {newest} are known here, so write it in one of these"
        )
    return int(opset)


def _inlined(path: Path, model: ModelProto) -> ModelProto:
    """Return the model with the body of each function in place of its calls.

    Raises:
        ExportError: Functions call themselves, or there would be too much.
    """
    if not model.functions:
        return model
    functions = {(_domain(part.domain), part.name, part.overload): part for part in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size_of(body: GraphProto | FunctionProto, callers: tuple[tuple[str, str, str], ...] = ()) -> int:
        size: int = body.ByteSize()
        for node in parts(body, NodeProto):
            size += _NODE_SIZE
            called = (_domain(node.domain), node.op_type, node.overload)
            if called not in functions:
                continue
            if called in callers or len(callers) == _DEEPEST_CALL:
                raise ExportError(f"{path}: its function {node.op_type!r} calls itself, or {_DEEPEST_CALL} others deep")
            if called not in sizes:
                sizes[called] = size_of(functions[called], (*callers, called))
            size += sizes[called]
        return size

    if size_of(model.graph) > _LARGEST_INLINED:
        raise ExportError(
            f"{path}: its functions call each other too often to be put in place of the calls; simplify it first"
        )
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # what the checker inside raises has no common base
        raise ExportError(f"{path}: its functions cannot be inlined: {one_line(error)}") from error


def _domain(name: str) -> str:
    """Return the domain by the one name that this module uses for it."""
    return "" if name == "ai.onnx" else name


def _cut(model: ModelProto, nodes: tuple[NodeProto, ...], values: set[str], output: str) -> None:
    """Leave nothing in the model but `nodes`, the inputs and weights named in `values`, and `output`.

    onnxruntime computes every node of a graph, and what is not needed has not been checked.
    """
    graph = model.graph
    produced = {name for node in nodes for name in node.output}
    _keep(graph.node, lambda node: not produced.isdisjoint(node.output))
    for inputs in (graph.initializer, graph.input):
        _keep(inputs, lambda value: value.name in values)
    _keep(graph.value_info, lambda value: value.name in produced)
    _keep(graph.output, lambda value: value.name == output)
    if not graph.output:
        graph.output.append(helper.make_empty_tensor_value_info(output))
    model.ClearField("training_info")


def _keep(values: Any, condition: Callable[[Any], bool]) -> None:
    """Remove the elements of a repeated field that do not meet `condition`."""
    for i in reversed(range(len(values))):
        if not condition(values[i]):
            del values[i]


def files_of(path: Path) -> set[Path]:
    """The file at `path` and those that its weights lie in, resolved.

    Raises:
        ExportError: the file is missing or damaged.
    """
    return {path.resolve(), *external_files(path, parse(path))}


def _refuse_subgraphs(path: Path, nodes: tuple[NodeProto, ...]) -> None:
    branching = [node for node in nodes if any(a.HasField("g") or a.graphs for a in node.attribute)]
    if branching:
        listed = first_few([f"{node.op_type} (node {node_name(node)!r})" for node in branching])
        raise ExportError(
            f"{path}: runs parts of its graph on a condition: {listed}; simplify it first, for example with "
            f"onnxruntime's basic optimisations"
        )


def _output(path: Path, graph: GraphProto, head: str | int | None) -> str:
    names = [value.name for value in graph.output]
    if not names:
        raise ExportError(f"{path}: the graph has no output")
    if head is None:
        if len(names) > 1:
            raise ExportError(f"{path}: several outputs: {first_few(names, most=8)}; choose the logits with --head")
        return str(names[0])
    if isinstance(head, int) and str(head) not in names:
        if not 0 <= head < len(names):
            raise ExportError(f"{path}: --head {head}, but the outputs are {first_few(names, most=8)}")
        return str(names[head])
    if not any(str(head) in node.output for node in graph.node):
        raise ExportError(f"{path}: computes no value {str(head)!r}; the outputs are {first_few(names, most=8)}")
    return str(head)


def _needed(graph: GraphProto, output: str) -> tuple[NodeProto, ...]:
    """The nodes that lead to `output`, in order."""
    wanted, kept = {output}, []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    return tuple(reversed(kept))


def _constants(path: Path, graph: GraphProto, nodes: tuple[NodeProto, ...]) -> dict[str, NDArray[np.generic]]:
    if graph.sparse_initializer:
        raise ExportError(f"{path}: has sparse weights, which are not supported; store them dense")
    used = {name for node in nodes for name in node.input}
    found = {}
    for tensor in graph.initializer:
        if tensor.name in used:
            found[tensor.name] = tensor_value(path, tensor)
    return found


def _input(
    path: Path, graph: GraphProto, nodes: tuple[NodeProto, ...], constants: dict[str, NDArray[np.generic]], output: str
) -> Input:
    initializers = {tensor.name for tensor in graph.initializer}
    used = {name for node in nodes for name in node.input} | {output}
    inputs = [value for value in graph.input if value.name not in initializers and value.name in used]
    if len(inputs) != 1:
        listed = first_few([value.name for value in inputs], most=8) or "none"
        raise ExportError(f"{path}: an image classifier has one input, the images; this one has {listed}")
    return _images(path, inputs[0])


def _images(path: Path, value: ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    if tensor.elem_type not in FLOATS:
        name = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type else "no tensor"
        raise ExportError(
            f"{path}: the input {value.name!r} is {name}; floating point images are needed, for gradients to reach them"
        )
    if not tensor.HasField("shape") or len(tensor.shape.dim) != 4:
        rank = f"{len(tensor.shape.dim)} dimensions" if tensor.HasField("shape") else "no shape"
        raise ExportError(f"{path}: the input {value.name!r} has {rank}; images (N, C, H, W) are needed")
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    channels_last = sizes[1] not in _CHANNELS and sizes[3] in _CHANNELS
    batch, channels, height, width = [sizes[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3))]
    return Input(value.name, batch, channels, (height, width), channels_last, tensor.elem_type)
