"""Write a model file that is derived from another one: its weights, its metadata, and both files or neither."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from seewhy.contract import constants as contract
from seewhy.contract.checksum import seal
from seewhy.contract.metadata import Layer, Metadata, ParameterGroup
from seewhy.contract.weights import data_path, hashed_header
from seewhy.errors import ModelFileError, OutputError
from seewhy.runtime.model_file import ModelFile
from seewhy.storage.model_publishing import owns_weights, publish
from seewhy.storage.output_folder import Folder

# Position of each tensor in the file of weights, in bytes, so that it can be read without a copy.
_ALIGNMENT = 64


def check_destination(path: Path, file: ModelFile) -> None:
    """Raise an OutputError if the new file cannot be written, or would replace the original or another kind of file.

    Args:
        path: Path of the new model file.
        file: The original model file.
    """
    if not path.name:
        raise OutputError(f"{path}: is not the name of a file; give the output a name")
    weights = (file.metadata.external_data or {}).get("file")
    for original in (file.path, *([] if weights is None else [file.path.with_name(weights)])):
        for own in (path, data_path(path)):
            if os.path.exists(own) and own.samefile(original):
                raise OutputError(f"{own}: would replace the original model file; give the output another name")
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{path}: is not a file; give the output another name")
    if os.path.lexists(data := data_path(path)) and not owns_weights(path):
        raise OutputError(
            f"{data}: would be replaced, but is not the weights file of a SeeWhy model {path.name}; move it, or give "
            f"the output another name"
        )
    if os.path.exists(path):
        try:
            ModelFile.inspect(path, verify=False)
        except ModelFileError:
            raise OutputError(
                f"{path}: exists and is not a valid model file; move it, or give the output another name"
            ) from None
    created = [folder for folder in path.parents if not os.path.exists(folder)]
    try:
        with _staging(path) as staging:
            (staging / path.name).touch()
    finally:
        for folder in created:
            with suppress(OSError):  # it was not created, or another process uses it already
                folder.rmdir()


def derived_metadata(
    file: ModelFile, kept: Collection[str], graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]
) -> Metadata:
    """Return the metadata of a file derived from another: that of the original, without what is no longer true.

    Args:
        file: The original model file.
        kept: Outputs of the new graph.
        graph: The new graph.
        arrays: Values of its initializers by name.

    Returns:
        The metadata, with the hash of the new weights.
    """
    old = file.metadata
    return replace(
        old,
        model=replace(old.model, weights_sha256=_weights_sha256(graph, arrays)),
        layer=_layer(old.layer, kept, {name for node in graph.node for name in node.output}),
        parity={name: errors for name, errors in old.parity.items() if name in kept},
        parameters=_parameters(old.parameters, arrays),
    )


def write_model(path: Path, model: onnx.ModelProto, metadata: Metadata, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a model file, and large weights to the file `PATH.data` beside it: both or neither.

    Args:
        path: Path of the model file.
        model: The model. Its initializers are changed.
        metadata: Its metadata, without the entry of external data.
        arrays: Values of its initializers by name.

    Raises:
        OutputError: If the file cannot be written.
    """
    parts, external = _store(model.graph, arrays, f"{path.name}.data")
    _write(path, model, replace(metadata, external_data=external), parts)


def _parameters(groups: Sequence[ParameterGroup] | None, weights: Collection[str]) -> tuple[ParameterGroup, ...] | None:
    """Return the parameters that the new graph still has; None if the original file lists none."""
    if groups is None:
        return None
    found = (replace(one, tensors=tuple(name for name in one.tensors if name in weights)) for one in groups)
    return tuple(group for group in found if group.tensors)


def _layer(layer: Layer | None, kept: Collection[str], values: Collection[str]) -> Layer | None:
    """Return the target layer of the new graph, or None if no output depends on it."""
    if layer is None or not {contract.ACTIVATIONS, contract.GRADIENTS, contract.GRADCAM_MAP} & set(kept):
        return None
    return layer if layer.cut in values else replace(layer, separates=False, cut=None)


def _weights_sha256(graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of name, type, shape and little-endian values of every initializer, in order."""
    digest = hashlib.sha256()
    for tensor in graph.initializer:
        array = arrays[tensor.name]
        kind = TensorProto.DataType.Name(tensor.data_type)
        digest.update(hashed_header(tensor.name, kind, array.shape))
        digest.update(_little_endian(array))
    return digest.hexdigest()


def _little_endian(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in row-major order, without a copy if possible."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data


def _store(
    graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]], name: str
) -> tuple[list[bytes | memoryview], dict[str, str] | None]:
    """Move weights into the graph, or large ones to a second file if the model would be too large for one.

    Args:
        graph: The graph, whose initializers are changed.
        arrays: Values of its initializers by name.
        name: Name of the second file.

    Returns:
        The parts of the second file and its entry in the metadata, or an empty list and None if there is none.
    """
    outside = sum(array.nbytes for array in arrays.values()) > contract.EXTERNAL_DATA_THRESHOLD
    parts: list[bytes | memoryview] = []
    position, digest = 0, hashlib.sha256()
    for tensor in graph.initializer:
        array = arrays[tensor.name]
        if outside and array.nbytes >= contract.SMALLEST_EXTERNAL_TENSOR:
            padding = bytes(-position % _ALIGNMENT)
            data = _little_endian(array)
            _clear(tensor)
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": name, "offset": position + len(padding), "length": len(data)}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            for part in (padding, data):
                parts.append(part)
                digest.update(part)
                position += len(part)
        elif tensor.data_location == TensorProto.EXTERNAL or tensor.ByteSize() < array.nbytes:  # values elsewhere
            _clear(tensor)
            tensor.raw_data = bytes(_little_endian(array))
    return parts, {"file": name, "sha256": digest.hexdigest()} if parts else None


def _clear(tensor: TensorProto) -> None:
    """Remove the values of a tensor; name, type and shape stay."""
    name, kind, shape = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(shape)


def _write(path: Path, model: onnx.ModelProto, metadata: Metadata, parts: Sequence[bytes | memoryview]) -> None:
    """Write a model file and its weights file, both or neither."""
    helper.set_model_props(model, {**metadata.to_properties(), contract.DIGEST_KEY: contract.DIGEST_PLACEHOLDER})
    content = seal(model.SerializeToString())
    with _staging(path) as staging:
        staged = staging / path.name
        for target, blocks in ((data_path(staged), parts), (staged, [content])):
            if blocks:
                with target.open("xb") as output:
                    output.writelines(blocks)
                    output.flush()
                    os.fsync(output.fileno())
        publish(staged, path)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside a new model file. An OSError becomes an OutputError that names the model file."""
    Folder(path.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".seewhy-", dir=path.parent) as staging:
            yield Path(staging)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
