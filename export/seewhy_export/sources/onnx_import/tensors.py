"""Read the tensors of an ONNX file: each of the size that its shape says, and from the file's own folder alone."""

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

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}

_COMPLEX = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}

LARGEST_TENSOR = 2**31 - 1
"""Size of the largest tensor in bytes: no message of protobuf may be larger."""

# By name, since older versions of onnx lack some of them.
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

_Part = TypeVar("_Part")


def parts(message: Any, kind: type[_Part]) -> Iterator[_Part]:
    """Yield every message of one kind inside another, however deep: in subgraphs, functions and sparse tensors too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if isinstance(part, kind):
                yield part
            if not isinstance(part, TensorProto):  # holds numbers, and many of them
                yield from parts(part, kind)


def check_external(path: Path, model: ModelProto) -> None:
    """Check every reference from the ONNX file at `path` to weights beside it, also from parts that never run.

    Raises:
        ExportError: A file is outside the folder of `path`, missing, not regular or shorter than the tensor's shape
            says, or the reference contradicts the shape.
    """
    for tensor in parts(model, TensorProto):
        if tensor.data_location == TensorProto.EXTERNAL:
            _external(path, tensor)


def external_files(path: Path, model: ModelProto) -> set[Path]:
    """Return the resolved paths of the files that hold weights of the ONNX file at `path`."""
    folder = path.resolve().parent
    return {
        Path(os.path.realpath(folder / entry.value))
        for tensor in parts(model, TensorProto)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def tensor_value(path: Path, tensor: TensorProto) -> NDArray[np.generic]:
    """Return the array in a tensor: floating point as float32, or float16 where it is that.

    Raises:
        ExportError: Its bytes do not fit its shape, cannot be read, or hold text.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        content = _read(path, tensor, _external(path, tensor))
        tensor = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
    check_size(path, tensor)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, tensor, one_line(error)) from error
    if array.dtype.kind not in "biuf":
        if tensor.data_type not in FLOATS:
            raise ExportError(f"{path}: the constant {tensor.name!r} holds {array.dtype}, not numbers")
        array = array.astype(np.float32)  # bfloat16 has a NumPy type of its own
    return array.astype(np.float32) if array.dtype == np.float64 else array


def check_size(path: Path, tensor: TensorProto) -> None:
    """Check that a tensor inside the file has as much data as its shape says, before anything takes its shape.

    Raises:
        ExportError: The data is shorter or longer than the shape needs.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return
    needed = _bytes_needed(path, tensor)
    if tensor.HasField("raw_data"):
        held, what = len(tensor.raw_data), "bytes"
    else:
        held, what = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))), "numbers"
        bits, elements = _BITS[TensorProto.DataType.Name(tensor.data_type)], math.prod(tensor.dims)
        # One number an element, but for complex ones (two) and for those of which several fit into a byte.
        needed = needed if bits in (2, 4) else elements * (2 if tensor.data_type in _COMPLEX else 1)
    if held != needed:
        raise _damaged(path, tensor, f"they have {held} {what}, and {_kind(tensor)} needs {needed}")


@dataclass(frozen=True)
class _External:
    """Position of the bytes of a tensor."""

    file: Path
    location: str
    """Path of the file as the ONNX file writes it."""
    offset: int
    length: int


def _external(path: Path, tensor: TensorProto) -> _External:
    """Resolve a tensor's reference to a file, and check it against the tensor's shape and the file's size.

    The checksum is ignored, as onnx and onnxruntime do.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    inside = location and "\0" not in location and not os.path.isabs(location) and ".." not in Path(location).parts
    target = Path(os.path.realpath(folder / location)) if inside else folder
    if not inside or not target.is_relative_to(folder):
        raise ExportError(f"{path}: keeps weights in {short(location)!r}, outside its own folder; put them beside it")
    needed = _bytes_needed(path, tensor)
    offset = _count(path, tensor, "offset", entries.get("offset", "0"))
    length = _count(path, tensor, "length", entries.get("length", str(needed)))
    if length != needed:
        raise _damaged(path, tensor, f"their length is {length} bytes, and {_kind(tensor)} needs {needed}")
    found = _External(target, location, offset, length)
    with _opened(path, tensor, found) as file:
        size = os.fstat(file.fileno()).st_size
    if offset + length > size:
        raise _damaged(path, tensor, f"they end at byte {offset + length} of {location!r}, which has {size} bytes")
    return found


def _read(path: Path, tensor: TensorProto, where: _External) -> bytes:
    """Return the bytes of a tensor that lies beside the file."""
    with _opened(path, tensor, where) as file:
        try:
            file.seek(where.offset)
            content: bytes = file.read(where.length)
        except OSError as error:
            raise ExportError(f"{path}: {where.location!r} cannot be read: {error.strerror or error}") from error
    if len(content) != where.length:
        raise _damaged(path, tensor, f"{where.location!r} became shorter while it was read")
    return content


def _opened(path: Path, tensor: TensorProto, where: _External) -> Any:
    try:
        return open_regular(where.file)
    except FileNotFoundError as error:
        raise ExportError(
            f"{path}: its weights are in {short(where.location)!r}, which is not there; put it beside {path.name}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(
            f"{path}: its weights are in {short(where.location)!r}, which cannot be read: {reason}"
        ) from error


def _count(path: Path, tensor: TensorProto, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise _damaged(path, tensor, f"their {what} is {short(text)!r}, and a number of bytes is needed")
    return int(text)


def _bytes_needed(path: Path, tensor: TensorProto) -> int:
    """Return the number of bytes that a tensor's type and shape ask for."""
    known = TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in known else ""
    if kind not in _BITS:
        raise _damaged(path, tensor, f"they are of the data type {kind or tensor.data_type}, which holds no numbers")
    if any(length < 0 for length in tensor.dims):
        raise _damaged(path, tensor, f"their shape {_shape(tensor)} has a negative length")
    needed: int = -(-math.prod(tensor.dims) * _BITS[kind] // 8)
    if needed > LARGEST_TENSOR:
        raise ExportError(
            f"{path}: the weights {short(tensor.name)!r} are {_kind(tensor)}, which takes more than the "
            f"{LARGEST_TENSOR} bytes that a tensor may have"
        )
    return needed


def _kind(tensor: TensorProto) -> str:
    return f"{TensorProto.DataType.Name(tensor.data_type)} of shape {_shape(tensor)}"


def _shape(tensor: TensorProto) -> str:
    return short(str(list(tensor.dims)))


def _damaged(path: Path, tensor: TensorProto, reason: str) -> ExportError:
    return ExportError(f"{path}: the weights {short(tensor.name)!r} are damaged: {reason}")
