"""Writing of model files: weights inside or beside the file, metadata and digest. Either all is written or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir

from seewhy._shared.regular_files import sha256_of
from seewhy.contract import constants as contract
from seewhy.contract.checksum import seal
from seewhy.contract.metadata import Metadata
from seewhy.contract.weights import data_path as data_path
from seewhy.contract.weights import hashed_header
from seewhy.errors import ExportError
from seewhy.storage import model_publishing
from seewhy.storage.model_publishing import owns_weights


def weights_sha256(model: onnx_ir.Model) -> str:
    """Return the SHA-256 over name, dtype, shape and little-endian bytes of every initializer, in file order."""
    digest = hashlib.sha256()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        digest.update(hashed_header(name, tensor.dtype.name, tensor.shape.numpy()))
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def check_destination(path: Path) -> None:
    """Check that writing a model does not replace a file that is not its own. Its weights may need a second file.

    Args:
        path: Path of the model file.

    Raises:
        ExportError: If `path` is a folder, a pipe or a device, or if `NAME.onnx.data` exists and is not the weights
            file of a model at `path`.
    """
    if path.is_dir():
        raise ExportError(f"{path}: cannot be written: it is a folder")
    if path.exists() and not path.is_file():
        raise ExportError(f"{path}: cannot be written: it is a pipe or a device, which a file would replace")
    data = data_path(path)
    if os.path.lexists(data) and not owns_weights(path):
        raise ExportError(
            f"{data}: would be replaced, but is not the weights file of a SeeWhy model {path.name}; move it, or give "
            f"the output another name"
        )


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Create a temporary folder beside `path`, which is removed at the end, whatever happens.

    Args:
        path: Path of the model file.

    Yields:
        The folder.

    Raises:
        ExportError: If the folder of `path` does not exist or cannot be written, or if `check_destination` fails.
    """
    check_destination(path)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".seewhy-", dir=path.parent))
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(model: onnx_ir.Model, metadata: Metadata, path: Path) -> Metadata:
    """Write a model with its metadata and digest.

    Weights above the contract's threshold go to the file `NAME.onnx.data` beside it.

    Args:
        model: Model; its metadata is replaced, and its weights may become external.
        metadata: Metadata to write.
        path: Path of the model file.

    Returns:
        The metadata as written, including the entry for the weights file.

    Raises:
        ExportError: If a file cannot be written, for example because the disk is full.
    """
    try:
        data_file = _move_weights_out(model, path)
        if data_file is not None:
            metadata = replace(metadata, external_data={"file": data_file.name, "sha256": _file_sha256(data_file)})
        model.metadata_props.clear()
        model.metadata_props.update(metadata.to_properties())
        model.metadata_props[contract.DIGEST_KEY] = contract.DIGEST_PLACEHOLDER
        with open(path, "wb") as file:
            file.write(seal(onnx_ir.to_proto(model).SerializeToString()))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ExportError(f"{path.name}: cannot be written: {error.strerror or error}") from error
    return metadata


def publish(staged: Path, path: Path) -> None:
    """Move a written model and its weights file, if it has one, to their destination.

    If a step fails, the previous pair of files is restored.

    Args:
        staged: Path of the model file in the staging folder.
        path: Destination.

    Raises:
        ExportError: If the destination cannot be written.
    """
    try:
        model_publishing.publish(staged, path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error


def _move_weights_out(model: onnx_ir.Model, path: Path) -> Path | None:
    """Write large weights to a second file if the model is too large for one; return its path, or None."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in tensors):
        return data_path(path)
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= contract.EXTERNAL_DATA_THRESHOLD:
        return None
    data_file = data_path(path)
    onnx_ir.external_data.unload_from_model(
        model, path.parent, data_file.name, size_threshold_bytes=contract.SMALLEST_EXTERNAL_TENSOR
    )
    return data_file


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256_of(file)
