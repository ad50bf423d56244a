"""Reading an ONNX file that somebody else made: whole, inside its own folder, and of a form that can be converted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner, numpy_helper

from seewhy import contract
from seewhy.errors import ExportError

from .quiet import one_line
from .source import some

OLDEST_OPSET = 7
"""From here on, operators broadcast as NumPy does."""

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
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
    model = _parse(path)
    graph = model.graph
    if not all(isinstance(name, str) for name in _names(graph)):
        raise ExportError(f"{path}: not an ONNX file, or a damaged one: a name in it is not UTF-8")
    if any(entry.key.startswith(contract.KEY_PREFIX) for entry in model.metadata_props):
        raise ExportError(f"{path}: already a SeeWhy file; it explains itself, with `seewhy explain {path}`")
    opset = _opset(path, model)
    _load_external(path, model)
    if model.functions:
        graph = inliner.inline_local_functions(model).graph
    output = _output(path, graph, head)
    nodes = _needed(graph, output)
    _refuse_subgraphs(path, nodes)
    constants = _constants(path, graph, nodes)
    images = _input(path, graph, nodes, constants, output)
    half = any(array.dtype == np.float16 for array in constants.values()) or images.element_type != TensorProto.FLOAT
    return OnnxFile(path, opset, images, output, nodes, constants, half)


def _parse(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError among them, whose module changes between protobuf versions
        raise ExportError(f"{path}: not an ONNX file, or a damaged one: {one_line(error)}") from error


def _names(graph: GraphProto) -> Iterator[Any]:
    """Every name in the graph; bytes where it is no text."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in (*graph.input, *graph.output))


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


def _load_external(path: Path, model: ModelProto) -> None:
    """Bring in weights that lie beside the file, from its own folder alone."""
    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        inside = location and not os.path.isabs(location) and ".." not in Path(location).parts
        target = folder / location
        if not inside or "\0" in location or not target.resolve().is_relative_to(folder):
            raise ExportError(f"{path}: keeps weights in {location!r}, outside its own folder; put them beside it")
        if not target.is_file():
            raise ExportError(f"{path}: its weights are in {location!r}, which is not there; put it beside {path.name}")
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path}: its weights cannot be read: {one_line(error)}") from error


def files_of(path: Path) -> set[Path]:
    """The file at `path` and those that its weights lie in, resolved.

    Raises:
        ExportError: the file is missing or damaged.
    """
    external = [entry for tensor in _tensors(_parse(path).graph) for entry in tensor.external_data]
    whole = path.resolve()
    return {whole, *((whole.parent / entry.value).resolve() for entry in external if entry.key == "location")}


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _refuse_subgraphs(path: Path, nodes: tuple[NodeProto, ...]) -> None:
    branching = [node for node in nodes if any(a.HasField("g") or a.graphs for a in node.attribute)]
    if branching:
        listed = some([f"{node.op_type} (node {node_name(node)!r})" for node in branching])
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
            raise ExportError(f"{path}: several outputs: {some(names, most=8)}; choose the logits with --head")
        return str(names[0])
    if isinstance(head, int) and str(head) not in names:
        if not 0 <= head < len(names):
            raise ExportError(f"{path}: --head {head}, but the outputs are {some(names, most=8)}")
        return str(names[head])
    if not any(str(head) in node.output for node in graph.node):
        raise ExportError(f"{path}: computes no value {str(head)!r}; the outputs are {some(names, most=8)}")
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


def tensor_value(path: Path, tensor: TensorProto) -> NDArray[np.generic]:
    """The array in a tensor: floating point as float32, or float16 where it is that.

    Raises:
        ExportError: its bytes do not fit its shape, or it holds text.
    """
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
        raise ExportError(f"{path}: the weights {tensor.name!r} are damaged: {one_line(error)}") from error
    if array.dtype.kind not in "biuf":
        if tensor.data_type not in FLOATS:
            raise ExportError(f"{path}: the constant {tensor.name!r} holds {array.dtype}, not numbers")
        array = array.astype(np.float32)  # bfloat16 has a NumPy type of its own
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _input(
    path: Path, graph: GraphProto, nodes: tuple[NodeProto, ...], constants: dict[str, NDArray[np.generic]], output: str
) -> Input:
    initializers = {tensor.name for tensor in graph.initializer}
    used = {name for node in nodes for name in node.input} | {output}
    inputs = [value for value in graph.input if value.name not in initializers and value.name in used]
    if len(inputs) != 1:
        listed = some([value.name for value in inputs], most=8) or "none"
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
