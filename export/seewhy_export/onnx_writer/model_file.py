"""Writing the model file: weights inside or beside it, metadata, digest; whole or not at all."""

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
from seewhy.errors import ExportError
from seewhy_export.sources.onnx_import.file_reading import parse

# Small tensors stay in the main file even where weights move out: shapes and the like are needed to check the graph.
_SMALLEST_EXTERNAL_TENSOR = 1024


def weights_sha256(model: onnx_ir.Model) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes of every initializer, in file order."""
    digest = hashlib.sha256()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        digest.update(f"{name}\0{tensor.dtype.name}\0{list(tensor.shape.numpy())}\0".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def check_destination(path: Path) -> None:
    """Check that writing a model to `path` destroys nobody else's file: its weights may have to lie beside it.

    Raises:
        ExportError: `path` is a folder, or `NAME.onnx.data` is there and no weights file of a model at `path`.
    """
    if path.is_dir():
        raise ExportError(f"{path}: cannot be written: it is a folder")
    if path.exists() and not path.is_file():
        raise ExportError(f"{path}: cannot be written: it is a pipe or a device, and a file would take its place")
    data = data_path(path)
    if os.path.lexists(data) and not _owns(path, data):
        raise ExportError(
            f"{data}: would be replaced, and is not the weights file of a SeeWhy model {path.name}; move it, or give "
            f"the output another name"
        )


def _owns(path: Path, data: Path) -> bool:
    """Whether `path` is a model file that says that its weights are in `data`."""
    try:
        model = parse(path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        external = Metadata.from_properties(properties, str(path)).external_data
    except Exception:  # noqa: BLE001  missing, damaged, or something else; protobuf's DecodeError moves about
        return False
    return external is not None and external["file"] == data.name


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write in; it is gone afterwards, whatever happens.

    Raises:
        ExportError: the folder of `path` does not exist or cannot be written, or something is in the way.
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
    """Write `model` to `path`, sealed, and return the metadata as written.

    Weights beyond the contract's threshold go to the sibling file `NAME.onnx.data`.

    Raises:
        ExportError: the disk is full, or the like.
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
    """Move a written model, and its weights file if it has one, to where it belongs.

    Raises:
        ExportError: the destination cannot be written.
    """
    data, old_data, kept = data_path(staged), data_path(path), staged.with_name("previous.data")
    has_data = data.exists()
    try:
        if old_data.is_file():
            os.replace(old_data, kept)
        if has_data:
            os.replace(data, old_data)
        os.replace(staged, path)
    except BaseException as error:
        if staged.exists():  # interrupted before the last step, so the old pair is still the valid one
            if has_data and not data.exists():
                old_data.unlink(missing_ok=True)
            if kept.exists():
                os.replace(kept, old_data)
        if isinstance(error, OSError):
            raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def data_path(path: Path) -> Path:
    """Where the weights of the model at `path` lie, if they are not in it."""
    return path.with_name(path.name + ".data")


def _move_weights_out(model: onnx_ir.Model, path: Path) -> Path | None:
    """Write large weights to the sibling file where the model would not fit into one; its path, or None."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in tensors):
        return data_path(path)
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= contract.EXTERNAL_DATA_THRESHOLD:
        return None
    data_file = data_path(path)
    onnx_ir.external_data.unload_from_model(
        model, path.parent, data_file.name, size_threshold_bytes=_SMALLEST_EXTERNAL_TENSOR
    )
    return data_file


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256_of(file)
