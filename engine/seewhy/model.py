"""Read a model file: parse it, hold it to the contract, check that it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from . import contract
from .contract import Metadata, Shape
from .digest import file_digest
from .errors import ModelFileError
from .text import short

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_PROTOBUF_LIMIT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that keeps the contract."""

    path: Path
    proto: onnx.ModelProto
    metadata: Metadata
    outputs: tuple[str, ...]
    """The contract's outputs that this file holds, in the contract's order."""
    damage: str | None
    """What is wrong with the file's bytes, in one line; None where they are whole, or were not checked."""
    stamp: tuple[int, int, int] = field(repr=False)
    """Tells whether the file is still the one that was read."""

    @classmethod
    def read(cls, path: str | os.PathLike[str], verify: bool = True) -> ModelFile:
        """Read `path`, and check its hash if `verify`.

        Raises:
            ModelFileError: the file is missing, damaged, not ONNX, or breaks the contract.
        """
        model = cls.inspect(path, verify)
        if model.damage is not None:
            raise ModelFileError(model.damage)
        return model

    @classmethod
    def inspect(cls, path: str | os.PathLike[str], verify: bool = True) -> ModelFile:
        """Like `read`, but a wrong hash is reported as `damage` instead of raised."""
        path = Path(path)
        file = str(path)
        data, stamp = _read_bytes(path), _stamp(path)
        proto = _parse(data, file)
        properties = {entry.key: entry.value for entry in proto.metadata_props}
        metadata = Metadata.from_properties(properties, file)
        _check_external_data(proto, metadata, path)
        damage = _damage(data, properties, metadata, path) if verify else None
        if damage is None:
            _check_values(proto.graph, metadata, file)
        held = {value.name for value in proto.graph.output}
        outputs = tuple(name for name in contract.OUTPUTS if name in held)
        return cls(path, proto, metadata, outputs, damage, stamp)

    @property
    def sha256(self) -> str:
        """Of the file's bytes, as `sha256sum` gives it. The file is read again.

        Raises:
            ModelFileError: it is not the file any more that was read.
        """
        before = _stamp(self.path)
        digest = _stream_digest(self.path)
        if not before == self.stamp == _stamp(self.path):
            raise ModelFileError(f"{self.path}: changed since it was read; start again")
        return digest


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever a file is written to or replaced."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelFileError(f"{path}: a folder, not a model file")
        size = path.stat().st_size
        if size > _PROTOBUF_LIMIT:
            raise ModelFileError(f"{path}: not an ONNX file: {size} bytes, and ONNX stops at 2 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise ModelFileError(f"{path}: the file is empty; export the network again")
    return data


def _parse(data: bytes, file: str) -> onnx.ModelProto:
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception:  # noqa: BLE001  protobuf's DecodeError, whose module changes between protobuf versions
        raise ModelFileError(f"{file}: not an ONNX file, or a truncated one") from None
    if not proto.graph.node:
        raise ModelFileError(f"{file}: not an ONNX file: it holds no graph")
    if not all(isinstance(text, str) for text in _texts(proto)):
        raise ModelFileError(f"{file}: damaged: it holds a name that is not UTF-8; copy or export it again")
    return proto


def _texts(proto: onnx.ModelProto) -> Iterator[object]:
    """Every name that is looked at here or by `graph.py`. protobuf returns bytes where one is not UTF-8."""
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    yield from (opset.domain for opset in proto.opset_import)
    graph = proto.graph
    for node in graph.node:
        yield from (*node.input, *node.output, node.name, node.op_type, node.domain)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    for tensor in _tensors(graph):
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))


def _damage(data: bytes, properties: dict[str, str], metadata: Metadata, path: Path) -> str | None:
    recorded = properties.get(contract.DIGEST_KEY)
    if recorded is None:
        return f"{path}: the metadata lacks {contract.DIGEST_KEY}, so the file cannot be checked; export it again"
    try:
        whole = file_digest(data, recorded) == recorded
    except ValueError:
        whole = False
    if not whole:
        return f"{path}: damaged or changed since it was exported (its SHA-256 differs); copy or export it again"
    if metadata.external_data is not None:
        weights = path.with_name(metadata.external_data["file"])
        if _stream_digest(weights) != metadata.external_data["sha256"]:
            return f"{weights}: damaged or changed since it was exported (its SHA-256 differs); copy or export it again"
    return None


def _stream_digest(path: Path) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    return hasher.hexdigest()


def _check_external_data(proto: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """External weights may lie in one file beside the model, named in the metadata, and nowhere else."""
    declared = None if metadata.external_data is None else str(metadata.external_data["file"])
    if declared is not None and not _is_bare_name(declared):
        raise ModelFileError(f"{path}: refers to weights outside its folder: '{short(declared)}'")
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not _is_bare_name(location):
            raise ModelFileError(f"{path}: refers to weights outside its folder: '{short(location)}'")
        if location != declared:
            raise ModelFileError(f"{path}: refers to weights that its metadata does not name: '{short(location)}'")
    if declared is not None and not _is_file(path.with_name(declared)):
        raise ModelFileError(f"{path}: its weights {short(declared)} are missing; both files belong in the same folder")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no system takes
        return False


def _is_bare_name(name: str) -> bool:
    """Whether `name` is a plain file name on every system: no folder, drive or parent."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in ("", ".", "..") and "\0" not in name and ":" not in name


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph stores: initializers and attributes, subgraphs included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)


def _check_values(graph: onnx.GraphProto, metadata: Metadata, file: str) -> None:
    """Hold names, dtypes and shapes of the graph's inputs and outputs to the contract."""
    shapes = metadata.shapes
    initialized = {tensor.name for tensor in graph.initializer}
    found_inputs = {value.name: value for value in graph.input if value.name not in initialized}
    found_outputs = {value.name: value for value in graph.output}
    _require_names(found_inputs, (contract.IMAGES,), "input", file)
    _require_names(found_outputs, (contract.LOGITS,), "output", file)
    unknown = sorted(set(found_inputs) - set(contract.INPUTS))
    if unknown:
        raise ModelFileError(
            f"{file}: the graph wants an input '{short(unknown[0])}', which the contract does not know"
        )
    for name, value in found_inputs.items():
        _check_value(value, _INT64 if name == contract.TARGETS else _FLOAT, shapes[name], f"{file}: input {name}")
    for name in contract.OUTPUTS:
        if name in found_outputs:
            _check_value(found_outputs[name], _FLOAT, shapes[name], f"{file}: output {name}")
    if metadata.layer is None and contract.ACTIVATIONS in found_outputs:
        raise ModelFileError(
            f"{file}: the graph holds {contract.ACTIVATIONS}, but the metadata names no target layer; export the "
            f"network again"
        )
    if metadata.labels is not None and len(metadata.labels) != metadata.classes:
        raise ModelFileError(f"{file}: {len(metadata.labels)} labels for {metadata.classes} classes")
    chosen = metadata.preprocessing
    if chosen is not None and len(chosen.mean) != metadata.channels:
        raise ModelFileError(f"{file}: {len(chosen.mean)} means for {metadata.channels} channels")


def _require_names(found: dict[str, onnx.ValueInfoProto], names: tuple[str, ...], what: str, file: str) -> None:
    for name in names:
        if name not in found:
            raise ModelFileError(f"{file}: the graph has no {what} {name!r}; export the network again")


def _check_value(value: onnx.ValueInfoProto, dtype: int, dims: Shape, what: str) -> None:
    tensor = value.type.tensor_type
    if tensor.elem_type != dtype:
        raise ModelFileError(f"{what} must be {_dtype_name(dtype)}, not {_dtype_name(tensor.elem_type)}")
    found: Shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    fits = len(found) == len(dims) and all(_dim_fits(have, want) for have, want in zip(found, dims, strict=True))
    if not fits:
        raise ModelFileError(f"{what} must have the shape {_show(dims)}, not {_show(found)}")


def _dtype_name(dtype: int) -> str:
    known: dict[int, str] = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return known.get(dtype, f"of the unknown type {dtype}")


def _dim_fits(have: int | str, want: int | str) -> bool:
    if want == "N":
        return isinstance(have, str)  # the batch must be dynamic
    return isinstance(want, str) or isinstance(have, str) or have == want


def _show(dims: Shape) -> str:
    return "(" + short(", ".join(map(str, dims))) + ")"
