"""Read a model file: parse it, hold it to the contract, check that it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import short
from seewhy.contract import constants as contract
from seewhy.contract import json_values
from seewhy.contract.checksum import file_digests
from seewhy.contract.constants import ACTIVATIONS, Shape
from seewhy.contract.metadata import Metadata
from seewhy.errors import ModelFileError
from seewhy.runtime.external_weights import ExternalWeights, tensors

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_PROTOBUF_LIMIT = 2**31 - 1
_NEWEST_OPSET = 1000
"""Far beyond what exists; onnxruntime says which it knows."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that keeps the contract. Everything in it was read once; later changes on disk have no effect."""

    path: Path
    proto: onnx.ModelProto
    metadata: Metadata
    outputs: tuple[str, ...]
    """The contract's outputs that this file holds, in the contract's order."""
    damage: str | None
    """What is wrong with the file's bytes, in one line; None where they are whole, or were not checked."""
    sha256: str
    """SHA-256 of the bytes that were parsed, as 64 hexadecimal digits; `sha256sum` gives the same."""
    weights: Mapping[str, NDArray[Any]] = field(repr=False)
    """The tensors that lie in the file beside the model file, by name. Empty where there is none, and in a model file
    that was only inspected."""
    external_data_sha256: str | None
    """SHA-256 of the bytes of the file beside the model file; None where there is none, or it was not read."""

    @classmethod
    def read(cls, path: str | os.PathLike[str], verify: bool = True) -> ModelFile:
        """Read a model file, and the weights beside it if there are any.

        Args:
            path: Path of the model file.
            verify: Whether to compare the hashes of the files with those that the exporter recorded.

        Raises:
            ModelFileError: If a file is missing, damaged, not ONNX, or breaks the contract.
        """
        model = cls._load(path, verify, hold_weights=True)
        if model.damage is not None:
            raise ModelFileError(model.damage)
        return model

    @classmethod
    def inspect(cls, path: str | os.PathLike[str], verify: bool = True) -> ModelFile:
        """Read a model file without holding the weights beside it. A wrong hash becomes `damage` instead of an error.

        Raises:
            ModelFileError: If a file is missing, not ONNX, or breaks the contract in another way.
        """
        return cls._load(path, verify, hold_weights=False)

    @classmethod
    def _load(cls, path: str | os.PathLike[str], verify: bool, hold_weights: bool) -> ModelFile:
        path = Path(path)
        file = str(path)
        data = _read_bytes(path)
        proto = _parse(data, file)
        properties = _properties(proto, file)
        metadata = Metadata.from_properties(properties, file)
        recorded = properties.get(contract.DIGEST_KEY)
        expected, sha256 = _digests(data, recorded)
        damage = _damage(recorded, expected, path) if verify else None
        weights: Mapping[str, NDArray[Any]] = {}
        external_data_sha256 = None
        if damage is None:
            _refuse_what_the_exporter_never_writes(proto, file)
            _check_values(proto.graph, metadata, file)
            recorded_weights = metadata.external_data or {}
            external = ExternalWeights.locate(proto.graph, recorded_weights.get("file"), path)
            if external is not None and hold_weights:
                weights, external_data_sha256 = external.read()
            elif external is not None and verify:
                external_data_sha256 = external.sha256()
            if external is not None and verify and external_data_sha256 != recorded_weights["sha256"]:
                damage = _changed(external.shown)
        held = {value.name for value in proto.graph.output}
        outputs = tuple(name for name in contract.OUTPUTS if name in held)
        return cls(path, proto, metadata, outputs, damage, sha256, weights, external_data_sha256)


def _read_bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _PROTOBUF_LIMIT:
                raise ModelFileError(f"{path}: not an ONNX file: {size} bytes, and ONNX stops at 2 GiB")
            data = file.read(size)
    except IsADirectoryError:
        raise ModelFileError(f"{path}: a folder, not a model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path that no system takes
        raise ModelFileError(f"{short(str(path))}: cannot be read: {error}") from None
    if not data:
        raise ModelFileError(f"{path}: the file is empty; export the network again")
    return data


def _refuse_what_the_exporter_never_writes(proto: onnx.ModelProto, file: str) -> None:
    """Refuse everything beside one flat graph of standard operators.

    Such things are either of no use in a SeeWhy file or a way around the checks: a function may hold tensors that refer
    to other files, an operator of another domain may open files, and a loop may never end.

    Raises:
        ModelFileError: If there are functions, training graphs, operators of another domain, or graphs inside a node.
    """
    if not all(0 < opset.version <= _NEWEST_OPSET for opset in proto.opset_import):
        raise ModelFileError(f"{file}: written in an opset that does not exist; export the network again")
    twice = json_values.first_repeated(tensor.name for tensor in proto.graph.initializer)
    if twice is not None:
        raise ModelFileError(f"{file}: holds two weights called '{short(twice)}'; export the network again")
    domains = {opset.domain for opset in proto.opset_import} | {node.domain for node in proto.graph.node}
    foreign = sorted(domains - {"", "ai.onnx"})
    nested = next(
        (node for node in proto.graph.node for one in node.attribute if one.HasField("g") or one.graphs), None
    )
    if proto.functions:
        found = "model-local functions"
    elif proto.training_info:
        found = "graphs for training"
    elif foreign:
        found = f"operators of the domain '{short(foreign[0])}'"
    elif nested is not None:
        found = f"a graph inside its node '{short(nested.name)}' ({short(nested.op_type)})"
    else:
        return
    raise ModelFileError(f"{file}: holds {found}, which the exporter never writes; export the network again")


def _properties(proto: onnx.ModelProto, file: str) -> dict[str, str]:
    """Return the metadata by key.

    Raises:
        ModelFileError: If a key is given twice: programs would differ in which value they take.
    """
    twice = json_values.first_repeated(entry.key for entry in proto.metadata_props)
    if twice is not None:
        raise ModelFileError(f"{file}: the metadata gives {short(twice)} twice; export the network again")
    return {entry.key: entry.value for entry in proto.metadata_props}


def _digests(data: bytes, recorded: str | None) -> tuple[str | None, str]:
    """Return the digest that the file should carry, or None if it carries none, and the plain hash of its bytes."""
    if recorded is not None:
        try:
            return file_digests(data, recorded)
        except ValueError:
            pass
    return None, hashlib.sha256(data).hexdigest()


def _damage(recorded: str | None, expected: str | None, path: Path) -> str | None:
    if recorded is None:
        return f"{path}: the metadata lacks {contract.DIGEST_KEY}, so the file cannot be checked; export it again"
    return None if recorded == expected else _changed(path)


def _changed(path: Path) -> str:
    return f"{path}: damaged or changed since it was exported (its SHA-256 differs); copy or export it again"


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
    """Yield every name that is read here or in `graph_pruning.py`. protobuf returns bytes where one is not UTF-8."""
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    yield from (opset.domain for opset in proto.opset_import)
    graph = proto.graph
    for node in graph.node:
        yield from (*node.input, *node.output, node.name, node.op_type, node.domain)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    for tensor in tensors(graph):
        yield from (tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value)))


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
    if metadata.labels is not None and len(metadata.labels) != metadata.class_count:
        raise ModelFileError(f"{file}: {len(metadata.labels)} labels for {metadata.class_count} classes")
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


def repeat_reason(model: ModelFile) -> str | None:
    """Why the graph cannot start at the target layer, in words that follow "since"; None where it can."""
    layer = model.metadata.layer
    if layer is None or ACTIVATIONS not in model.outputs:
        return "the file holds no activations to start from"
    if not layer.separates or layer.cut is None:
        return f"not every path from the image to the logits passes through {layer.name}"
    if layer.cut != ACTIVATIONS:
        return f"the graph could only be cut at {layer.cut}, which is not an output"
    return None
