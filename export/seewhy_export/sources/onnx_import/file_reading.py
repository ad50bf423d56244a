"""Read ONNX files that other programs wrote, and check that they can be converted.

A file must be complete, refer to no file outside its folder, and be a classifier: images in, logits out.
"""

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
from seewhy._shared.suggestions import did_you_mean
from seewhy.contract import constants as contract
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.messages import first_few, one_line
from seewhy_export.sources.onnx_import.tensors import (
    FLOAT_TYPES,
    check_external,
    check_size,
    external_files,
    submessages,
    tensor_value,
)

OLDEST_OPSET = 7
"""Oldest operator set. From it on, operators broadcast as in NumPy."""

_LARGEST_FILE = 2**31 - 1
"""Maximum size of a file in bytes, which is protobuf's limit for a message."""
_LARGEST_INLINED = 2**31
"""Maximum size in bytes of a graph after inlining. Functions that call each other can grow it exponentially."""
_NODE_SIZE = 2**12
"""Bytes added for each node in that size, for its Python objects and the time that it takes."""
_DEEPEST_CALL = 100
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ImageInput:
    """The input with the images, as the file declares it."""

    name: str
    batch: int | None
    """Batch size, or None if the file leaves it open."""
    channels: int | None
    """Number of channels, or None if the file leaves it open."""
    size: tuple[int | None, int | None]
    """(H, W) in pixels. An element is None if the file leaves it open."""
    channels_last: bool
    """True for images (N, H, W, C), False for (N, C, H, W)."""
    element_type: int
    """Data type, as in TensorProto."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file, pruned to what the chosen output needs."""

    path: Path
    model: ModelProto
    """The graph from the images to `output`, and nothing else. External weights stay in their files."""
    opset: int
    input: ImageInput
    output: str
    """Name of the value that holds the logits."""
    nodes: tuple[NodeProto, ...]
    constants: dict[str, NDArray[np.generic]]
    half: bool
    """True if any value has half precision."""

    def describe(self, node: NodeProto) -> str:
        """Return how messages name a node."""
        return f"{self.path}: node {node_name(node)!r} ({node.op_type})"


def node_name(node: NodeProto) -> str:
    """Return the name of a node, or of its first output if it has none."""
    return node.name or next(iter(node.output), "")


def read_onnx(path: Path, head: str | int | None = None) -> OnnxFile:
    """Read the ONNX file at `path` and prune it to the chosen output.

    Args:
        path: The ONNX file.
        head: Output that holds the logits: a name, which may be that of a value inside the graph, or an index. None
            takes the only output.

    Returns:
        The pruned file.

    Raises:
        ExportError: If the file is missing, damaged, refers to files outside its folder, has not exactly one input of
            images, or is a file that SeeWhy wrote.
    """
    model = parse(path)
    if not all(isinstance(text, str) for text in _texts(model)):
        raise ExportError(f"{path}: is not an ONNX file, or is damaged: a name in it is not UTF-8")
    if any(entry.key.startswith(contract.KEY_PREFIX) for entry in model.metadata_props):
        raise ExportError(f"{path}: is already a SeeWhy model file; explain images with: seewhy explain {path}")
    opset = _opset(path, model)
    check_external(path, model)
    model = _inlined(path, model)
    graph = model.graph
    output = _logits_name(path, graph, head)
    nodes = _nodes_before(graph, output)
    _refuse_subgraphs(path, nodes)
    for node in nodes:
        for tensor in submessages(node, TensorProto):
            check_size(path, tensor)
    constants = _constants(path, graph, nodes)
    images = _image_input(path, graph, nodes, constants, output)
    half = any(array.dtype == np.float16 for array in constants.values()) or images.element_type != TensorProto.FLOAT
    _prune(model, nodes, {images.name, *constants}, output)
    return OnnxFile(path, model, opset, images, output, nodes, constants, half)


def parse(path: Path) -> ModelProto:
    """Read an ONNX file without its external weights.

    Args:
        path: The ONNX file.

    Returns:
        The model as the file holds it; its content is not validated.

    Raises:
        ExportError: If the file is missing, not regular, too large, or not ONNX.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_FILE:
                raise ExportError(f"{path}: is not an ONNX file: it has {size} bytes, and the limit is {_LARGEST_FILE}")
            content = file.read(size)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # e.g. DecodeError, whose module depends on the version of protobuf
        raise ExportError(f"{path}: is not an ONNX file, or is damaged: {one_line(error)}") from error


def _texts(model: ModelProto) -> Iterator[Any]:
    """Yield every text that this package reads. A text that is not UTF-8 arrives as bytes."""
    yield from (entry.key for entry in model.metadata_props)
    yield from (entry.domain for entry in model.opset_import)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    for node in submessages(model, NodeProto):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for tensor in submessages(model, TensorProto):
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))
    yield from (value.name for value in (*model.graph.input, *model.graph.output))


def _opset(path: Path, model: ModelProto) -> int:
    """Return the version of the ONNX operator set."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    if opset is None:
        raise ExportError(f"{path}: is not an ONNX file, or is damaged: it names no operator set")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(
            f"{path}: opset must be between {OLDEST_OPSET} and {newest}, not {opset}; export it with another opset"
        )
    return int(opset)


def _inlined(path: Path, model: ModelProto) -> ModelProto:
    """Return the model with the body of each function in place of its calls.

    An ExportError is raised if a function calls itself, or if the result would be too large.
    """
    if not model.functions:
        return model
    functions = {(_domain(function.domain), function.name, function.overload): function for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size_of(body: GraphProto | FunctionProto, callers: tuple[tuple[str, str, str], ...] = ()) -> int:
        size: int = body.ByteSize()
        for node in submessages(body, NodeProto):
            size += _NODE_SIZE
            called = (_domain(node.domain), node.op_type, node.overload)
            if called not in functions:
                continue
            if called in callers or len(callers) == _DEEPEST_CALL:
                raise ExportError(
                    f"{path}: its function {node.op_type!r} calls itself, or calls are nested more than "
                    f"{_DEEPEST_CALL} deep"
                )
            if called not in sizes:
                sizes[called] = size_of(functions[called], (*callers, called))
            size += sizes[called]
        return size

    if size_of(model.graph) > _LARGEST_INLINED:
        raise ExportError(f"{path}: its functions call each other too often to be inlined; simplify the file first")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the errors of its checker have no common base
        raise ExportError(f"{path}: its functions cannot be inlined: {one_line(error)}") from error


def _domain(name: str) -> str:
    """Return the domain of an operator, with one name for the default domain."""
    return "" if name == "ai.onnx" else name


def _prune(model: ModelProto, nodes: tuple[NodeProto, ...], values: set[str], output: str) -> None:
    """Remove everything from the model except `nodes`, the inputs and weights named in `values`, and `output`.

    onnxruntime computes every node of a graph, and the other nodes have not been checked.
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


def referenced_files(path: Path) -> set[Path]:
    """List the files that an ONNX model consists of.

    Args:
        path: The ONNX file.

    Returns:
        Resolved paths of the ONNX file and of the files that hold its weights.

    Raises:
        ExportError: If the file is missing or damaged.
    """
    return {path.resolve(), *external_files(path, parse(path))}


def _refuse_subgraphs(path: Path, nodes: tuple[NodeProto, ...]) -> None:
    """Refuse nodes that run subgraphs."""
    branching = [node for node in nodes if any(a.HasField("g") or a.graphs for a in node.attribute)]
    if branching:
        listed = first_few([f"{node.op_type} (node {node_name(node)!r})" for node in branching])
        raise ExportError(
            f"{path}: has nodes that run subgraphs on a condition: {listed}; simplify the file first, for example "
            f"with onnxruntime's basic optimisations"
        )


def _logits_name(path: Path, graph: GraphProto, head: str | int | None) -> str:
    """Return the name of the value that holds the logits."""
    names = [value.name for value in graph.output]
    if not names:
        raise ExportError(f"{path}: the graph has no output")
    if head is None:
        if len(names) > 1:
            raise ExportArgumentError(
                f"{path}: has several outputs: {first_few(names, most=8)}; choose the logits with --head"
            )
        return str(names[0])
    if isinstance(head, int) and str(head) not in names:
        if not 0 <= head < len(names):
            raise ExportArgumentError(
                f"{path}: head must be an index below {len(names)}, not {head}; "
                f"the outputs are {first_few(names, most=8)}"
            )
        return str(names[head])
    values = {name for node in graph.node for name in node.output}
    if str(head) not in values:
        hint = did_you_mean(str(head), names) or did_you_mean(str(head), values)
        raise ExportArgumentError(
            f"{path}: unknown output {str(head)!r}.{hint} The outputs are {first_few(names, most=8)}"
        )
    return str(head)


def _nodes_before(graph: GraphProto, output: str) -> tuple[NodeProto, ...]:
    """Return the nodes that `output` depends on, in order."""
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    return tuple(reversed(kept))


def _constants(path: Path, graph: GraphProto, nodes: tuple[NodeProto, ...]) -> dict[str, NDArray[np.generic]]:
    """Return the weights that the nodes use, by name."""
    if graph.sparse_initializer:
        raise ExportError(f"{path}: has sparse weights, which are not supported; store them as dense tensors")
    used = {name for node in nodes for name in node.input}
    found = {}
    for tensor in graph.initializer:
        if tensor.name in used:
            found[tensor.name] = tensor_value(path, tensor)
    return found


def _image_input(
    path: Path, graph: GraphProto, nodes: tuple[NodeProto, ...], constants: dict[str, NDArray[np.generic]], output: str
) -> ImageInput:
    """Return the only input of the graph, which must hold the images."""
    initializers = {tensor.name for tensor in graph.initializer}
    used = {name for node in nodes for name in node.input} | {output}
    inputs = [value for value in graph.input if value.name not in initializers and value.name in used]
    if len(inputs) != 1:
        listed = first_few([value.name for value in inputs], most=8) or "none"
        raise ExportError(f"{path}: must have one input, the images; it has {listed}")
    return _parse_image_input(path, inputs[0])


def _parse_image_input(path: Path, value: ValueInfoProto) -> ImageInput:
    """Return the declaration of an input of images."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in FLOAT_TYPES:
        name = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type else "not a tensor"
        raise ExportError(
            f"{path}: the input {value.name!r} is {name}; it must be floating point so that gradients can reach it"
        )
    if not tensor.HasField("shape") or len(tensor.shape.dim) != 4:
        rank = f"{len(tensor.shape.dim)} dimensions" if tensor.HasField("shape") else "no shape"
        raise ExportError(
            f"{path}: the input {value.name!r} has {rank}; it must be images (N, C, H, W) or (N, H, W, C)"
        )
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    channels_last = sizes[1] not in _CHANNELS and sizes[3] in _CHANNELS
    batch, channels, height, width = [sizes[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3))]
    return ImageInput(value.name, batch, channels, (height, width), channels_last, tensor.elem_type)
