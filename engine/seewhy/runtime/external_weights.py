"""Read the weights that lie in a file beside a model file, and hold them in memory.

onnxruntime maps such a file into memory and opens it again for every session. If the file were overwritten while a
program runs, even sessions that already exist would compute with the new bytes. So the file is read once, its hash is
taken over the bytes that were read, and every session is given those bytes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from seewhy._shared.regular_files import open_regular, sha256_of
from seewhy._shared.text import short
from seewhy.contract.json_values import first_repeated
from seewhy.errors import ModelFileError

_BLOCK = 1 << 22
_MOST = 2**31

# Types whose elements take whole bytes, and which NumPy and onnxruntime store in the same way.
_DTYPES: dict[int, np.dtype[Any]] = {
    kind: np.dtype(name)
    for kind, name in (
        (TensorProto.FLOAT, "<f4"),
        (TensorProto.DOUBLE, "<f8"),
        (TensorProto.FLOAT16, "<f2"),
        (TensorProto.INT8, "i1"),
        (TensorProto.INT16, "<i2"),
        (TensorProto.INT32, "<i4"),
        (TensorProto.INT64, "<i8"),
        (TensorProto.UINT8, "u1"),
        (TensorProto.UINT16, "<u2"),
        (TensorProto.UINT32, "<u4"),
        (TensorProto.UINT64, "<u8"),
        (TensorProto.BOOL, "?"),
    )
}


@dataclass(frozen=True)
class _Place:
    """Position of one tensor in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    """First byte."""
    stop: int
    """Byte after the last one."""


@dataclass(frozen=True, eq=False)
class ExternalWeights:
    """The tensors of a graph that lie in one file beside the model file."""

    path: Path
    """The file; links in its name are resolved."""
    shown: Path
    """The file as messages name it."""
    places: Mapping[str, _Place] = field(repr=False)

    @classmethod
    def locate(cls, graph: onnx.GraphProto, declared: str | None, model: Path) -> ExternalWeights | None:
        """Find the file that holds the graph's external tensors, without reading it.

        Args:
            graph: Graph of the model file.
            declared: Name of the file in the metadata, or None if the metadata names none.
            model: Path of the model file.

        Returns:
            The file and the tensors in it, or None if the metadata names no file and no tensor is external.

        Raises:
            ModelFileError: If a tensor refers to another file than the declared one, to a place that the file does not
                have, or is not an initializer; or if the file is missing, leads out of the folder, or is too long.
        """
        if declared is not None and not _is_bare_name(declared):
            raise ModelFileError(f"{model}: refers to weights outside its folder: '{short(declared)}'")
        external = list(filter(_is_external, graph.initializer))
        others = list(filter(_is_external, _other_tensors(graph)))
        for tensor in (*external, *others):
            location = _entries(tensor).get("location", "")
            if (twice := first_repeated(entry.key for entry in tensor.external_data)) is not None:
                raise ModelFileError(f"{model}: the weight '{short(tensor.name)}' gives its {short(twice)} twice")
            if not _is_bare_name(location):
                raise ModelFileError(f"{model}: refers to weights outside its folder: '{short(location)}'")
            if location != declared:
                raise ModelFileError(f"{model}: refers to weights that its metadata does not name: '{short(location)}'")
        if others:
            raise ModelFileError(
                f"{model}: keeps a tensor that is not a weight in {short(declared or '')}, which the exporter never "
                f"does; export the network again"
            )
        if declared is None:
            return None
        places = {tensor.name: _place(tensor, model) for tensor in external}
        shown = model.with_name(declared)
        return cls(_resolved(shown, model), shown, places)

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, reading it block by block.

        Raises:
            ModelFileError: If the file cannot be read, or is not as long as its tensors need.
        """
        with self._open() as file:
            return sha256_of(file)

    def read(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Read the whole file into memory.

        Returns:
            The tensors by name, read-only arrays that share one buffer, and the SHA-256 of the file's bytes as 64
            hexadecimal digits.

        Raises:
            ModelFileError: If the file cannot be read, is not as long as its tensors need, or does not fit in memory.
        """
        with self._open() as file:
            try:
                buffer = np.empty(self._end, np.uint8)
            except (MemoryError, ValueError):
                raise ModelFileError(
                    f"{self.shown}: not enough memory to hold its {self._end} bytes of weights"
                ) from None
            view: memoryview = buffer.data
            position, hasher = 0, hashlib.sha256()
            while count := file.readinto(view[position : position + _BLOCK]):  # type: ignore[attr-defined]
                hasher.update(view[position : position + count])
                position += count
        if position != self._end:
            raise ModelFileError(f"{self.shown}: became shorter while it was read; copy or export it again")
        buffer.flags.writeable = False
        return {
            name: np.require(buffer[place.start : place.stop].view(place.dtype), requirements=["C", "A"]).reshape(
                place.shape
            )
            for name, place in self.places.items()
        }, hasher.hexdigest()

    @property
    def _end(self) -> int:
        return max((place.stop for place in self.places.values()), default=0)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self._end:
                    raise ModelFileError(
                        f"{self.shown}: damaged or of another model: it has {size} bytes, but the weights in it end at "
                        f"byte {self._end}; copy or export it again"
                    )
                yield file
        except OSError as error:
            raise ModelFileError(f"{self.shown}: cannot be read: {error.strerror or error}") from None


def _place(tensor: onnx.TensorProto, model: Path) -> _Place:
    """Return where an external tensor lies. The length is always that of its shape, whatever the entry says."""
    where = f"{model}: the weight '{short(tensor.name)}'"
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None:
        raise ModelFileError(f"{where} is of type {tensor.data_type}, which cannot lie beside a model file")
    if any(not 0 <= dim < _MOST for dim in tensor.dims):
        raise ModelFileError(f"{where} has a dimension that no tensor has; export the network again")
    size = math.prod(tensor.dims) * dtype.itemsize
    entries = _entries(tensor)
    start, length = (_count(entries.get(key, str(default))) for key, default in (("offset", 0), ("length", size)))
    if start is None or length != size:
        raise ModelFileError(
            f"{where} must have {size} bytes in {short(entries.get('location', ''))}, but its entry says offset "
            f"'{short(entries.get('offset', '0'))}', length '{short(entries.get('length', ''))}'; export the network "
            f"again"
        )
    return _Place(dtype, tuple(tensor.dims), start, start + size)


def _count(text: str) -> int | None:
    """Return the non-negative integer that `text` writes in decimal digits, or None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a graph without subgraphs stores."""
    yield from graph.initializer
    yield from _other_tensors(graph)


def _other_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a graph without subgraphs stores besides its dense initializers."""
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            sparse_tensors = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*sparse_tensors, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _resolved(shown: Path, model: Path) -> Path:
    """Return the file with links in its name resolved.

    A cache or a volume may link both files to another folder, as long as it is the same folder.

    Raises:
        ModelFileError: If there is no such file, or a link leads to another folder than the model file's.
    """
    try:
        real = shown.resolve(strict=True)
        folders = {model.parent.resolve(), model.resolve().parent}
    except (OSError, ValueError, RuntimeError):  # missing, a name that no system takes, or links in a circle
        raise ModelFileError(
            f"{model}: its weights {short(shown.name)} are missing; both files belong in the same folder"
        ) from None
    if real.parent not in folders:
        raise ModelFileError(
            f"{model}: its weights {short(shown.name)} are a link that leads out of its folder; put the file itself "
            f"beside the model file"
        )
    return real


def _is_bare_name(name: str) -> bool:
    """Tell whether `name` is a plain file name on every system: no folder, drive or parent."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in ("", ".", "..") and "\0" not in name and ":" not in name
