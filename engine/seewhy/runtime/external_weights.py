"""Read the weights in the file beside a model file into memory.

onnxruntime maps such a file into memory and opens it again for every session. If the file is overwritten while a
program runs, even existing sessions compute with the new bytes. Therefore the file is read once, its hash is computed
from the bytes that were read, and every session uses these bytes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.regular_files import open_regular, sha256_of
from seewhy._shared.text import short
from seewhy.contract.json_values import first_repeated
from seewhy.errors import ModelFileError
from seewhy.runtime.onnx_messages import GraphProto, ModelProto, TensorProto

_BLOCK = 1 << 22
_MAX_DIMENSION = 2**31

DTYPES: dict[int, np.dtype[Any]] = {
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
"""Types whose elements have whole bytes, and that NumPy and onnxruntime store in the same way."""


@dataclass(frozen=True)
class _TensorLocation:
    """Position of one tensor in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    """Position of the first byte."""
    stop: int
    """Position after the last byte."""


@dataclass(frozen=True, eq=False)
class ExternalWeights:
    """Tensors of a graph that are stored in the file beside the model file."""

    path: Path
    """Path of the file, with symbolic links resolved."""
    display_path: Path
    """Path of the file in error messages."""
    locations: Mapping[str, _TensorLocation] = field(repr=False)

    @classmethod
    def locate(cls, graph: GraphProto, declared: str | None, model: Path) -> ExternalWeights | None:
        """Find the file with the graph's external tensors, without reading it.

        Args:
            graph: Graph of the model file.
            declared: Name of the file in the metadata, or None if the metadata names none.
            model: Path of the model file.

        Returns:
            The file and the tensors in it, or None if the metadata names no file and no tensor is external.

        Raises:
            ModelFileError: If a tensor refers to another file than the declared one or to invalid positions, or is not
                an initializer; or if the file is missing or is a link to another folder.
        """
        if declared is not None and not _is_bare_name(declared):
            raise ModelFileError(f"{model}: refers to weights outside its folder: '{short(declared)}'")
        external = list(filter(_is_external, graph.initializer))
        others = list(filter(_is_external, _other_tensors(graph)))
        for tensor in (*external, *others):
            location = _entries(tensor).get("location", "")
            if (repeated := first_repeated(entry.key for entry in tensor.external_data)) is not None:
                raise ModelFileError(f"{model}: the weight '{short(tensor.name)}' gives its {short(repeated)} twice")
            if not _is_bare_name(location):
                raise ModelFileError(f"{model}: refers to weights outside its folder: '{short(location)}'")
            if location != declared:
                raise ModelFileError(f"{model}: refers to weights that its metadata does not name: '{short(location)}'")
        if others:
            raise ModelFileError(
                f"{model}: a tensor that is not a weight is stored in {short(declared or '')}; export the network again"
            )
        if declared is None:
            return None
        locations = {tensor.name: _location(tensor, model) for tensor in external}
        display_path = model.with_name(declared)
        return cls(_resolved(display_path, model), display_path, locations)

    def sha256(self) -> str:
        """Hash the file's bytes, which are read block by block.

        Returns:
            The SHA-256, as hexadecimal digits.

        Raises:
            ModelFileError: If the file cannot be read, or its size does not match its tensors.
        """
        with self._open() as file:
            return sha256_of(file)

    def read(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Read the whole file into memory.

        Returns:
            The tensors by name, read-only arrays that share one buffer, and the SHA-256 of the file's bytes as 64
            hexadecimal digits.

        Raises:
            ModelFileError: If the file cannot be read, its size does not match its tensors, or it does not fit in
                memory.
        """
        with self._open() as file:
            try:
                buffer = np.empty(self._end, np.uint8)
            except (MemoryError, ValueError):
                raise ModelFileError(
                    f"{self.display_path}: not enough memory for its {self._end} bytes of weights"
                ) from None
            view: memoryview = buffer.data
            position, hasher = 0, hashlib.sha256()
            while count := file.readinto(view[position : position + _BLOCK]):  # type: ignore[attr-defined]
                hasher.update(view[position : position + count])
                position += count
        if position != self._end:
            raise ModelFileError(
                f"{self.display_path}: the file became shorter while it was read; copy or export it again"
            )
        buffer.flags.writeable = False
        return {
            name: np.require(buffer[at.start : at.stop].view(at.dtype), requirements=["C", "A"]).reshape(at.shape)
            for name, at in self.locations.items()
        }, hasher.hexdigest()

    @property
    def _end(self) -> int:
        """Number of bytes that the file must have."""
        return max((location.stop for location in self.locations.values()), default=0)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """Open the file and check its size."""
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self._end:
                    raise ModelFileError(
                        f"{self.display_path}: damaged, or of another model: it has {size} bytes, but the weights in "
                        f"it end at byte {self._end}; copy or export it again"
                    )
                yield file
        except OSError as error:
            raise ModelFileError(f"{self.display_path}: cannot be read: {error.strerror or error}") from None


def _location(tensor: TensorProto, model: Path) -> _TensorLocation:
    """Return the position of an external tensor, whose length must be that of its shape."""
    where = f"{model}: the weight '{short(tensor.name)}'"
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        raise ModelFileError(f"{where} is of type {tensor.data_type}, which cannot be stored beside a model file")
    if any(not 0 <= dim < _MAX_DIMENSION for dim in tensor.dims):
        raise ModelFileError(f"{where} has an invalid dimension; export the network again")
    size = math.prod(tensor.dims) * dtype.itemsize
    entries = _entries(tensor)
    start, length = (_count(entries.get(key, str(default))) for key, default in (("offset", 0), ("length", size)))
    if start is None or length != size:
        raise ModelFileError(
            f"{where} must have {size} bytes in {short(entries.get('location', ''))}, but its entry says offset "
            f"'{short(entries.get('offset', '0'))}', length '{short(entries.get('length', ''))}'; export the network "
            f"again"
        )
    return _TensorLocation(dtype, tuple(tensor.dims), start, start + size)


def _count(text: str) -> int | None:
    """Return the non-negative integer that `text` gives in decimal digits, or None if it is no such integer."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _entries(tensor: TensorProto) -> dict[str, str]:
    """Return the entries that describe where an external tensor is stored."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _is_external(tensor: TensorProto) -> bool:
    """Return True if a tensor is stored outside the model file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def refer_to(model: ModelProto, weights: Collection[str]) -> list[str]:
    """Make initializers of a model refer to values outside it, for `SessionOptions.add_external_initializers`.

    Args:
        model: The model, which is changed.
        weights: Names of the weights whose values are elsewhere.

    Returns:
        Names of the initializers that now refer to their values.
    """
    found = [tensor for tensor in model.graph.initializer if tensor.name in weights]
    for tensor in found:
        name, dims, kind = tensor.name, list(tensor.dims), tensor.data_type
        tensor.Clear()
        tensor.MergeFrom(TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL))
        tensor.external_data.add(key="location", value=name)
    return [tensor.name for tensor in found]


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield all tensors of a graph without subgraphs."""
    yield from graph.initializer
    yield from _other_tensors(graph)


def _other_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield all tensors of a graph without subgraphs, except its dense initializers."""
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


def _resolved(path: Path, model: Path) -> Path:
    """Return the path of the weights file with symbolic links resolved, or raise a ModelFileError if it is missing.

    A cache or a volume may link both files to another folder, as long as it is the same folder for both. A link that
    leads to another folder than the model file's is refused.
    """
    try:
        real = path.resolve(strict=True)
        folders = {model.parent.resolve(), model.resolve().parent}
    except (OSError, ValueError, RuntimeError):  # a missing file, a name with a null character, or circular links
        raise ModelFileError(
            f"{model}: its weights {short(path.name)} are missing; both files belong in the same folder"
        ) from None
    if real.parent not in folders:
        raise ModelFileError(
            f"{model}: its weights {short(path.name)} are a link that leads out of its folder; put the file itself "
            f"beside the model file"
        )
    return real


def _is_bare_name(name: str) -> bool:
    """Return True if `name` is a plain file name on every system, without a folder or drive."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in ("", ".", "..") and "\0" not in name and ":" not in name
