"""Read a model file, validate it against the file contract, and check it for damage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from seewhy._shared.background import Background
from seewhy._shared.text import short
from seewhy.contract import constants as contract
from seewhy.contract import json_values
from seewhy.contract.constants import ACTIVATIONS, Shape
from seewhy.contract.metadata import Metadata
from seewhy.errors import ModelFileError
from seewhy.runtime.external_weights import ExternalWeights, tensors
from seewhy.runtime.onnx_messages import GraphProto, ModelProto, TensorProto, ValueInfoProto
from seewhy.runtime.stored_weights import StoredWeights, read_model

_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64
_NEWEST_OPSET = 1000
"""Largest accepted opset, far above the existing ones. onnxruntime reports an opset that it does not support."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """Valid model file, whose large weights stay on disk until a session needs them.

    A file that is moved over it has no effect. If it is overwritten in place, existing sessions are not affected, and
    no new ones can be created.
    """

    path: Path
    """Path of the file."""
    proto: ModelProto
    """The model. Large weights have no values in it; see `values`."""
    metadata: Metadata
    """Metadata of the model."""
    outputs: tuple[str, ...]
    """Outputs of the contract that this file has, in the order of the contract."""
    damage: str | None
    """One-line description of damage to the file, or None if it is intact or was not checked."""
    sha256: str
    """SHA-256 of the bytes that were parsed, as 64 hexadecimal digits, as `sha256sum` computes it."""
    weights: Mapping[str, NDArray[Any]] = field(repr=False)
    """Values of initializers that replace those in the model file, by name.

    They are the tensors in the file beside the model file. The mapping is empty if there is no such file, or if the
    model file was only inspected.
    """
    stored: StoredWeights = field(repr=False)
    """Large weights of the model file."""
    external_data_sha256: str | None
    """SHA-256 of the file beside the model file, or None if there is none or it was not read."""

    @property
    def name(self) -> str:
        """Name of the file without its folder, for messages about images: a server may pass them to its clients."""
        return self.path.name

    def values(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return the values of initializers, in the model file or beside it.

        Args:
            names: Names of initializers.

        Returns:
            The values by name.

        Raises:
            ModelFileError: If there is no such initializer, its values do not match its type and shape, or the file was
                overwritten since it was first read.
        """
        from onnx import numpy_helper  # takes long to import, and explaining images does not need it

        inside = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        names = list(names)
        stored = self.stored.tensors([name for name in names if name in self.stored and name not in self.weights])
        inside.update((tensor.name, tensor) for tensor in stored)
        try:
            return {
                name: self.weights[name] if name in self.weights else numpy_helper.to_array(inside[name])
                for name in names
            }
        except KeyError as error:
            raise ModelFileError(f"{self.path}: has no weight '{short(error.args[0])}'") from None
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{self.path}: a weight is damaged: {error}; export the network again") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str], verify: bool = True, for_session: bool = False) -> ModelFile:
        """Read a model file, and the weights file beside it if there is one.

        Args:
            path: Path of the model file.
            verify: True to compare the hashes of the files with those that the exporter recorded.
            for_session: True if a session will follow: onnxruntime is then imported while the file is read.

        Returns:
            The model file.

        Raises:
            ModelFileError: If a file is missing, damaged, not ONNX, or violates the contract.
        """
        model = cls._load(path, verify, load_weights=True, for_session=for_session)
        if model.damage is not None:
            raise ModelFileError(model.damage)
        return model

    @classmethod
    def inspect(cls, path: str | os.PathLike[str], verify: bool = True) -> ModelFile:
        """Read a model file without loading the weights beside it. A wrong hash is recorded as `damage`.

        Args:
            path: Path of the model file.
            verify: True to compare the hashes of the files with those that the exporter recorded.

        Returns:
            The model file, without weights.

        Raises:
            ModelFileError: If a file is missing, not ONNX, or violates the contract in another way.
        """
        return cls._load(path, verify, load_weights=False)

    @classmethod
    def _load(
        cls, path: str | os.PathLike[str], verify: bool, load_weights: bool, for_session: bool = False
    ) -> ModelFile:
        """Read and validate a model file."""
        path = Path(path)
        file = str(path)
        data, stored, expected = _read_while_importing(path) if for_session else read_model(path)
        proto = _parse(data, file)
        properties = _properties(proto, file)
        metadata = Metadata.from_properties(properties, file)
        damage = _damage(properties.get(contract.DIGEST_KEY), expected, path) if verify else None
        weights: Mapping[str, NDArray[Any]] = {}
        external_data_sha256 = None
        if damage is None:
            _refuse_foreign_content(proto, file)
            _check_values(proto.graph, metadata, file)
            recorded_weights = metadata.external_data or {}
            external = ExternalWeights.locate(proto.graph, recorded_weights.get("file"), path)
            if external is not None and load_weights:
                weights, external_data_sha256 = external.read()
            elif external is not None and verify:
                external_data_sha256 = external.sha256()
            if external is not None and verify and external_data_sha256 != recorded_weights["sha256"]:
                damage = _changed(external.display_path)
        present = {value.name for value in proto.graph.output}
        outputs = tuple(name for name in contract.OUTPUTS if name in present)
        return cls(path, proto, metadata, outputs, damage, stored.sha256, weights, stored, external_data_sha256)


def _read_while_importing(path: Path) -> tuple[bytes, StoredWeights, str | None]:
    """Read a file in a thread, and import onnxruntime in the meantime, which takes about as long."""
    reading = Background(lambda: read_model(path), "seewhy-model-file")
    try:
        import onnxruntime  # noqa: F401
    finally:
        found = reading.result()
    return found


def _refuse_foreign_content(proto: ModelProto, file: str) -> None:
    """Raise a ModelFileError unless a model is one flat graph of standard operators, as the exporter writes it.

    Functions, training graphs, operators of another domain and graphs inside a node are useless in a SeeWhy file, or
    could bypass the checks: a function may contain tensors that refer to other files, an operator of another domain may
    open files, and a loop may never end. ScatterND with a reduction gives wrong numbers in several threads.
    """
    if not all(0 < opset.version <= _NEWEST_OPSET for opset in proto.opset_import):
        raise ModelFileError(f"{file}: uses an opset that does not exist; export the network again")
    repeated = json_values.first_repeated(tensor.name for tensor in proto.graph.initializer)
    if repeated is not None:
        raise ModelFileError(f"{file}: has two weights called '{short(repeated)}'; export the network again")
    domains = {opset.domain for opset in proto.opset_import} | {node.domain for node in proto.graph.node}
    foreign = sorted(domains - {"", "ai.onnx"})
    nested = next(
        (node for node in proto.graph.node for one in node.attribute if one.HasField("g") or one.graphs), None
    )
    # onnxruntime runs this sum in several threads without a lock, so the result would change from run to run.
    scattered = (node for node in proto.graph.node if node.op_type == "ScatterND")
    racing = next((n for n in scattered for one in n.attribute if one.name == "reduction" and one.s != b"none"), None)
    if proto.functions:
        found = "model-local functions"
    elif proto.training_info:
        found = "training graphs"
    elif foreign:
        found = f"operators of the domain '{short(foreign[0])}'"
    elif nested is not None:
        found = f"a graph inside its node '{short(nested.name)}' ({short(nested.op_type)})"
    elif racing is not None:
        found = f"a reduction in its node '{short(racing.name)}' (ScatterND)"
    else:
        return
    raise ModelFileError(f"{file}: contains {found}, which the exporter never writes; export the network again")


def _properties(proto: ModelProto, file: str) -> dict[str, str]:
    """Return the metadata by key, or raise a ModelFileError if a key is given twice.

    Programs would use different values of such a key.
    """
    repeated = json_values.first_repeated(entry.key for entry in proto.metadata_props)
    if repeated is not None:
        raise ModelFileError(f"{file}: the metadata gives {short(repeated)} twice; export the network again")
    return {entry.key: entry.value for entry in proto.metadata_props}


def _damage(recorded: str | None, expected: str | None, path: Path) -> str | None:
    """Return a description of the damage if the recorded digest is not the expected one, or None if it is."""
    if recorded is None:
        return f"{path}: the metadata lacks {contract.DIGEST_KEY}, so the file cannot be checked; export it again"
    return None if recorded == expected else _changed(path)


def _changed(path: Path) -> str:
    """Return the message for a file whose hash differs."""
    return f"{path}: damaged or changed since it was exported (its SHA-256 differs); copy or export it again"


def _parse(data: bytes, file: str) -> ModelProto:
    """Parse the bytes of a model file."""
    try:
        proto: ModelProto = ModelProto.FromString(data)
    except Exception:  # noqa: BLE001  protobuf's DecodeError, whose module changes between protobuf versions
        raise ModelFileError(f"{file}: not an ONNX file, or a truncated one") from None
    if not proto.graph.node:
        raise ModelFileError(f"{file}: not an ONNX file: it has no graph")
    if set(map(type, _texts(proto))) != {str}:
        raise ModelFileError(f"{file}: damaged: a name in it is not UTF-8; copy or export it again")
    return proto


def _texts(proto: ModelProto) -> list[object]:
    """Return all names that are read here or in `graph_pruning.py`. protobuf returns bytes if one is not UTF-8."""
    graph = proto.graph
    found: list[object] = [opset.domain for opset in proto.opset_import]
    for node in graph.node:  # a list, because a generator takes twice as long for the many names of a graph
        found += node.input
        found += node.output
        found += (node.name, node.op_type, node.domain)
        found += [attribute.name for attribute in node.attribute]
    for value in (*graph.input, *graph.output, *graph.value_info):
        found += (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    entries = list(proto.metadata_props)
    for tensor in tensors(graph):
        found.append(tensor.name)
        entries += tensor.external_data
    for entry in entries:
        found += (entry.key, entry.value)
    return found


def _check_values(graph: GraphProto, metadata: Metadata, file: str) -> None:
    """Validate names, dtypes and shapes of the graph's inputs and outputs against the contract."""
    shapes = metadata.shapes
    initialized = {tensor.name for tensor in graph.initializer}
    found_inputs = {value.name: value for value in graph.input if value.name not in initialized}
    found_outputs = {value.name: value for value in graph.output}
    _require_names(found_inputs, (contract.IMAGES,), "input", file)
    _require_names(found_outputs, (contract.LOGITS,), "output", file)
    unknown = sorted(set(found_inputs) - set(contract.INPUTS))
    if unknown:
        raise ModelFileError(f"{file}: the graph has an input '{short(unknown[0])}' that the contract does not define")
    for name, value in found_inputs.items():
        _check_value(value, _INT64 if name == contract.TARGETS else _FLOAT, shapes[name], f"{file}: input {name}")
    for name in contract.OUTPUTS:
        if name in found_outputs:
            _check_value(found_outputs[name], _FLOAT, shapes[name], f"{file}: output {name}")
    if metadata.layer is None and contract.ACTIVATIONS in found_outputs:
        raise ModelFileError(
            f"{file}: the graph has the output {contract.ACTIVATIONS}, but the metadata names no target layer; export "
            f"the network again"
        )
    gradients = sorted(contract.GRADIENTS_OF_THE_IMAGE.intersection(found_outputs))
    if metadata.quantization is not None and gradients:
        raise ModelFileError(
            f"{file}: the file is quantised, but has the output {gradients[0]}, which only a float32 file can compute; "
            f"quantise the network again"
        )
    if metadata.labels is not None and len(metadata.labels) != metadata.class_count:
        raise ModelFileError(f"{file}: {len(metadata.labels)} labels for {metadata.class_count} classes")
    parameters = (name for group in metadata.parameters or () for name in group.tensors)
    missing = next((name for name in parameters if name not in initialized), None)
    if missing is not None:
        raise ModelFileError(
            f"{file}: the metadata lists the parameter '{short(missing)}', but the graph has no such weight; export "
            f"the network again"
        )
    preprocessing = metadata.preprocessing
    if preprocessing is not None and len(preprocessing.mean) != metadata.channels:
        raise ModelFileError(f"{file}: {len(preprocessing.mean)} means for {metadata.channels} channels")


def _require_names(found: dict[str, ValueInfoProto], names: tuple[str, ...], kind: str, file: str) -> None:
    """Raise a ModelFileError if a required input or output is missing."""
    for name in names:
        if name not in found:
            raise ModelFileError(f"{file}: the graph has no {kind} {name!r}; export the network again")


def _check_value(value: ValueInfoProto, dtype: int, dims: Shape, name: str) -> None:
    """Raise a ModelFileError if the dtype or the shape of an input or output is wrong."""
    tensor = value.type.tensor_type
    if tensor.elem_type != dtype:
        raise ModelFileError(f"{name} must be {_dtype_name(dtype)}, not {_dtype_name(tensor.elem_type)}")
    found: Shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    fits = len(found) == len(dims) and all(map(_dim_fits, found, dims))
    if not fits:
        raise ModelFileError(f"{name} must have shape {_shape_text(dims)}, not {_shape_text(found)}")


def _dtype_name(dtype: int) -> str:
    """Return the name of an ONNX data type."""
    known: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return known.get(dtype, f"of the unknown type {dtype}")


def _dim_fits(actual: int | str, expected: int | str) -> bool:
    """Return True if a dimension fits that of the contract."""
    if expected == "N":
        return isinstance(actual, str)  # the batch must be dynamic
    return isinstance(expected, str) or isinstance(actual, str) or actual == expected


def _shape_text(dims: Shape) -> str:
    """Return a shape as printable text."""
    return "(" + short(", ".join(map(str, dims))) + ")"


def repeat_reason(model: ModelFile) -> str | None:
    """Return why the backbone must run again for each class, as words that follow "since".

    Args:
        model: The model file.

    Returns:
        The reason why the graph cannot start at the target layer, or None if it can.
    """
    layer = model.metadata.layer
    if layer is None or ACTIVATIONS not in model.outputs:
        return "the file has no activations to start from"
    if not layer.separates or layer.cut is None:
        return f"not every path from the image to the logits passes through {layer.name}"
    if layer.cut != ACTIVATIONS:
        return f"the graph could only be cut at {layer.cut}, which is not an output"
    return None
