"""Read the tensors of an ONNX file.

The data of each tensor must match its shape, and external data must lie in the folder of the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import short
from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line

FLOAT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}

_COMPLEX = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}

LARGEST_TENSOR = 2**31 - 1
"""Maximum size of a tensor in bytes, which is protobuf's limit for a message."""

# Bits of one element. Keyed by name, because older versions of onnx lack some of the types.
_BITS = {
    **dict.fromkeys(("UINT2", "INT2"), 2),
    **dict.fromkeys(("UINT4", "INT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("FLOAT6E2M3", "FLOAT6E3M2"), 6),
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 8),
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"), 8),
    **dict.fromkeys(("UINT16", "INT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("UINT32", "INT32", "FLOAT"), 32),
    **dict.fromkeys(("UINT64", "INT64", "DOUBLE", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}

_Message = TypeVar("_Message")


def submessages(message: Any, kind: type[_Message]) -> Iterator[_Message]:
    """Yield every message of one kind inside another at any depth, also in subgraphs, functions and sparse tensors."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            if isinstance(inner, kind):
                yield inner
            if not isinstance(inner, TensorProto):  # a tensor holds many numbers and no such messages
                yield from submessages(inner, kind)


def check_external(path: Path, model: ModelProto) -> None:
    """Check every reference to external weights, also in nodes that never run.

    Args:
        path: The ONNX file.
        model: Content of the file.

    Raises:
        ExportError: If a file is outside the folder of `path`, missing, not regular or shorter than the tensor's shape
            requires, or the reference contradicts the shape.
    """
    for tensor in submessages(model, TensorProto):
        if tensor.data_location == TensorProto.EXTERNAL:
            _resolve_external(path, tensor)


def external_files(path: Path, model: ModelProto) -> set[Path]:
    """Return the resolved paths of the files that hold weights of the ONNX file at `path`."""
    folder = path.resolve().parent
    return {
        Path(os.path.realpath(folder / entry.value))
        for tensor in submessages(model, TensorProto)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def tensor_value(path: Path, tensor: TensorProto) -> NDArray[np.generic]:
    """Return the array in a tensor.

    Args:
        path: The ONNX file.
        tensor: A tensor of the file. Its data may be external.

    Returns:
        The array, in the shape of the tensor. Floating-point types become float32, except float16.

    Raises:
        ExportError: If its bytes do not match its shape, cannot be read, or hold text.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        content = _read(path, tensor, _resolve_external(path, tensor))
        tensor = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
    check_size(path, tensor)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, tensor, one_line(error)) from error
    if array.dtype.kind not in "biuf":
        if tensor.data_type not in FLOAT_TYPES:
            raise ExportError(f"{path}: the constant {tensor.name!r} holds {array.dtype}, not numbers")
        array = array.astype(np.float32)  # onnx returns bfloat16 in a NumPy type of another package
    return array.astype(np.float32) if array.dtype == np.float64 else array


def check_size(path: Path, tensor: TensorProto) -> None:
    """Check that a tensor inside the file has the amount of data that its shape requires, before its shape is used.

    Args:
        path: The ONNX file, for messages.
        tensor: A tensor of the file. External data and text are not checked.

    Raises:
        ExportError: If the data is shorter or longer.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return
    needed = _bytes_needed(path, tensor)
    if tensor.HasField("raw_data"):
        held, what = len(tensor.raw_data), "bytes"
    else:
        held, what = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))), "numbers"
        bits, elements = _BITS[TensorProto.DataType.Name(tensor.data_type)], math.prod(tensor.dims)
        # Complex types have two numbers per element, and types of 2 or 4 bits several elements per byte.
        needed = needed if bits in (2, 4) else elements * (2 if tensor.data_type in _COMPLEX else 1)
    if held != needed:
        raise _damaged(path, tensor, f"they have {held} {what}, but {_kind(tensor)} needs {needed}")


@dataclass(frozen=True)
class _ExternalData:
    """Position of the bytes of a tensor in another file."""

    file: Path
    location: str
    """Path of the file as written in the ONNX file."""
    offset: int
    length: int


def _resolve_external(path: Path, tensor: TensorProto) -> _ExternalData:
    """Resolve a tensor's reference to a file, and check it against the tensor's shape and the file's size.

    The checksum is ignored, as in onnx and onnxruntime.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    inside = location and "\0" not in location and not os.path.isabs(location) and ".." not in Path(location).parts
    target = Path(os.path.realpath(folder / location)) if inside else folder
    if not inside or not target.is_relative_to(folder):
        raise ExportError(f"{path}: keeps weights in {short(location)!r}, outside its own folder; move them next to it")
    needed = _bytes_needed(path, tensor)
    offset = _byte_count(path, tensor, "offset", entries.get("offset", "0"))
    length = _byte_count(path, tensor, "length", entries.get("length", str(needed)))
    if length != needed:
        raise _damaged(path, tensor, f"their length is {length} bytes, but {_kind(tensor)} needs {needed}")
    found = _ExternalData(target, location, offset, length)
    with _opened(path, tensor, found) as file:
        size = os.fstat(file.fileno()).st_size
    if offset + length > size:
        raise _damaged(path, tensor, f"they end at byte {offset + length} of {location!r}, which has {size} bytes")
    return found


def _read(path: Path, tensor: TensorProto, where: _ExternalData) -> bytes:
    """Return the bytes of a tensor in another file."""
    with _opened(path, tensor, where) as file:
        try:
            file.seek(where.offset)
            content: bytes = file.read(where.length)
        except OSError as error:
            raise ExportError(f"{path}: {where.location!r} cannot be read: {error.strerror or error}") from error
    if len(content) != where.length:
        raise _damaged(path, tensor, f"{where.location!r} became shorter while being read")
    return content


def _opened(path: Path, tensor: TensorProto, where: _ExternalData) -> Any:
    """Open the file with the bytes of a tensor."""
    try:
        return open_regular(where.file)
    except FileNotFoundError as error:
        raise ExportError(
            f"{path}: its weights are in {short(where.location)!r}, which does not exist; copy it next to {path.name}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(
            f"{path}: its weights are in {short(where.location)!r}, which cannot be read: {reason}"
        ) from error


def _byte_count(path: Path, tensor: TensorProto, what: str, text: str) -> int:
    """Return a number of bytes from text."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise _damaged(path, tensor, f"their {what} must be a number of bytes, not {short(text)!r}")
    return int(text)


def _bytes_needed(path: Path, tensor: TensorProto) -> int:
    """Return the number of bytes that a tensor's type and shape require."""
    known = TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in known else ""
    if kind not in _BITS:
        raise _damaged(path, tensor, f"their data type is {kind or tensor.data_type}, which does not hold numbers")
    if any(length < 0 for length in tensor.dims):
        raise _damaged(path, tensor, f"their shape {_shape(tensor)} has a negative length")
    needed: int = -(-math.prod(tensor.dims) * _BITS[kind] // 8)
    if needed > LARGEST_TENSOR:
        raise ExportError(
            f"{path}: the weights {short(tensor.name)!r} are {_kind(tensor)}, which exceeds the limit of "
            f"{LARGEST_TENSOR} bytes for a tensor"
        )
    return needed


def _kind(tensor: TensorProto) -> str:
    """Return the type and shape of a tensor as text."""
    return f"{TensorProto.DataType.Name(tensor.data_type)} of shape {_shape(tensor)}"


def _shape(tensor: TensorProto) -> str:
    """Return the shape of a tensor as text."""
    return short(str(list(tensor.dims)))


def _damaged(path: Path, tensor: TensorProto, reason: str) -> ExportError:
    """Return the error for a tensor with damaged data."""
    return ExportError(f"{path}: the weights {short(tensor.name)!r} are damaged: {reason}")
