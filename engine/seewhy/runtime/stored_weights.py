"""Read a model file without its large weights, which stay in the file until a session needs them.

The file is read from front to back once, block by block, and hashed on the way. What is kept is the model without the
values of large weights, and the position of each of these. The file stays open, so that a file that is moved over it
changes nothing. When a session is created, the whole file is read and hashed again (see `model_stream.py`): if it was
overwritten in the meantime, the session is refused.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import short
from seewhy.contract.checksum import FileHasher, is_digest
from seewhy.errors import ModelFileError
from seewhy.runtime.onnx_messages import GraphProto, TensorProto

LARGE = 2**16
"""Smallest size of values that stay in the file, in bytes."""

_PROTOBUF_LIMIT = 2**31 - 1
# Largest number of fields of a model and its graph. A large network has some ten thousand.
_MOST_FIELDS = 2**19
# Each block costs two waits for the interpreter's lock, which another thread may hold for 5 ms.
_BLOCK = 2**20

# Numbers of fields in onnx.proto.
GRAPH, _METADATA = 7, 14
_INITIALIZER = 5
_RAW_DATA = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """Large weights of a model file, in the file."""

    path: Path
    """Path of the file, for messages."""
    sha256: str
    """SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    positions: Mapping[str, range] = field(repr=False)
    """Position of each weight by name: the field of the graph's message that holds its name, type, shape and values."""
    _file: IO[bytes] = field(repr=False)

    def __contains__(self, name: object) -> bool:
        """Return True if the values of a weight are in the file."""
        return name in self.positions

    def entries(self, names: Collection[str]) -> tuple[int, Iterator[memoryview]]:
        """Read weights as fields of a graph's message, with their names, types and shapes.

        Args:
            names: Names of the weights.

        Returns:
            The number of bytes, and an iterator over the bytes in blocks, each of which is valid until the next one.
            It raises a ModelFileError at its end if the file has changed since it was first read.
        """
        wanted = sorted((self.positions[name] for name in names), key=lambda entry: entry.start)
        return sum(map(len, wanted)), self._read(wanted)

    def tensors(self, names: Collection[str]) -> Sequence[TensorProto]:
        """Read weights with their values, in the order of the file.

        Args:
            names: Names of the weights.

        Returns:
            The weights.

        Raises:
            ModelFileError: If the file has changed since it was first read.
        """
        return GraphProto.FromString(b"".join(map(bytes, self.entries(names)[1]))).initializer if names else ()

    def check(self) -> None:
        """Read the whole file.

        Raises:
            ModelFileError: If the file has changed since it was first read.
        """
        for _ in self._read([]):
            pass

    def _read(self, wanted: list[range]) -> Iterator[memoryview]:
        """Read and hash the whole file, and yield the bytes at some positions, which are in order."""
        hasher, start, remaining = hashlib.sha256(), 0, list(reversed(wanted))
        block = memoryview(bytearray(_BLOCK))
        try:
            while count := os.preadv(self._file.fileno(), [block], start):
                hasher.update(block[:count])
                while remaining and remaining[-1].start < start + count:
                    part = remaining[-1]
                    yield block[max(part.start - start, 0) : min(part.stop - start, count)]
                    if part.stop > start + count:
                        break
                    remaining.pop()
                start += count
        except OSError as error:
            raise ModelFileError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        if hasher.hexdigest() != self.sha256:
            raise ModelFileError(
                f"{self.path}: was overwritten since it was first read (its SHA-256 differs); load the model file again"
            )


def read_model(path: Path) -> tuple[bytes, StoredWeights, str | None]:
    """Read a model file without the values of its large weights.

    Args:
        path: Path of the file.

    Returns:
        The serialised model, in which large weights have no values; the large weights; and the digest that the file
        should contain of itself, or None if it contains none.

    Raises:
        ModelFileError: If the file cannot be read, or is not a protobuf message.
    """
    try:
        file = open_regular(path)
    except IsADirectoryError:
        raise ModelFileError(f"{path}: is a folder, not a model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path with a null character
        raise ModelFileError(f"{short(str(path))}: cannot be read: {error}") from None
    try:
        reader = _Reader(file, path)
        positions: dict[str, range] = {}
        model = _read_model(reader, positions)
        hasher = reader.finish()
        stored = StoredWeights(path, hasher.plain, positions, file)
    except OSError as error:
        file.close()
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except BaseException:
        file.close()
        raise
    weakref.finalize(stored, file.close)
    return model, stored, hasher.expected


class _Reader:
    """Reads a file from front to back, and hashes all its bytes."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.size = os.fstat(file.fileno()).st_size
        if self.size > _PROTOBUF_LIMIT:
            raise ModelFileError(f"{path}: not an ONNX file: it has {self.size} bytes, but ONNX allows at most 2 GiB")
        if self.size == 0:
            raise ModelFileError(f"{path}: the file is empty; export the network again")
        self.position = self._fields = 0
        self.hasher = FileHasher()
        self._memory = memoryview(bytearray(_BLOCK))
        # The current block, the position in it, and the number of its bytes that are hashed.
        self._block, self._at, self._hashed = self._memory[:0], 0, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        data = bytes(self._block[self._at : self._at + count])
        self._at += len(data)
        self.position += len(data)
        return data if len(data) == count else data + self._take_from_next_block(count - len(data))

    def _take_from_next_block(self, count: int) -> bytes:
        if count > self.size - self.position:
            raise self.malformed()
        self._read_block()
        return self.take(count)

    def skip(self, count: int) -> None:
        """Pass over the next bytes."""
        if count > self.size - self.position:
            raise self.malformed()
        self.position += count
        while count > len(self._block) - self._at:
            count -= len(self._block) - self._at
            self._read_block()
        self._at += count

    def _read_block(self) -> None:
        """Hash the rest of the current block, and read the next one."""
        self._at = len(self._block)
        self._hash()
        count = self._file.readinto(self._memory)  # type: ignore[attr-defined]
        if not count:
            raise self.malformed()
        self._block, self._at, self._hashed = self._memory[:count], 0, 0

    def take_metadata(self, count: int) -> bytes:
        """Return the next bytes, an entry of the metadata. If it is the digest of the file, it is hashed as such."""
        self._hash()
        data = self.take(count)
        if is_digest(data):
            self.hasher.update_digest(data)
            self._hashed = self._at
        return data

    def finish(self) -> FileHasher:
        """Return the hashes of all bytes."""
        self._hash()
        return self.hasher

    def _hash(self) -> None:
        self.hasher.update(self._block[self._hashed : self._at])
        self._hashed = self._at

    def field(self, end: int) -> tuple[int, int, bytes]:
        """Read the start of a field.

        Args:
            end: Position at which the message with the field ends.

        Returns:
            Number of the field, number of bytes of its value, and the bytes that were read. The number is 0 if the
            value is a number, which is then among these bytes.
        """
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise self.malformed()
        tag, start = self._varint()
        kind = tag & 7
        if kind == _BYTES:
            length, more = self._varint()
            start += more
        elif kind == _VARINT:
            start += self._varint()[1]
            length = 0
        else:
            length = {_FIXED32: 4, _FIXED64: 8}.get(kind, _PROTOBUF_LIMIT)
        if length > end - self.position:
            raise self.malformed()
        return tag >> 3 if kind == _BYTES else 0, length, start

    def _varint(self) -> tuple[int, bytes]:
        """Return the next number, and its bytes."""
        raw = self.take(1)
        if raw < b"\x80":  # most often
            return raw[0], raw
        while raw[-1] & 0x80:
            raw += self.take(1)
            if len(raw) > 10:
                raise self.malformed()
        return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(raw)), raw

    def malformed(self) -> ModelFileError:
        """Return the error for a file that is not a protobuf message."""
        return ModelFileError(f"{self._path}: not an ONNX file, or a truncated one")


def _read_model(reader: _Reader, positions: dict[str, range]) -> bytes:
    """Return the model without the values of its large weights, whose positions are added to `positions`."""
    parts = []
    while reader.position < reader.size:
        number, length, start = reader.field(reader.size)
        if number == GRAPH:
            parts.append(_message(GRAPH, _read_graph(reader, reader.position + length, positions)))
        else:
            parts += [start, reader.take_metadata(length) if number == _METADATA else reader.take(length)]
    return b"".join(parts)


def _read_graph(reader: _Reader, end: int, positions: dict[str, range]) -> bytes:
    """Return a graph without the values of its large weights."""
    parts = []
    while reader.position < end:
        first = reader.position
        number, length, start = reader.field(end)
        if number != _INITIALIZER or length < LARGE:
            parts += [start, reader.take(length)]
            continue
        tensor, is_large = _read_tensor(reader, reader.position + length)
        parts.append(_message(_INITIALIZER, tensor))
        if is_large:
            try:
                name = TensorProto.FromString(tensor).name
            except Exception:  # noqa: BLE001  protobuf's DecodeError, whose module changes between protobuf versions
                raise reader.malformed() from None
            positions[name] = range(first, reader.position)
    return b"".join(parts)


def _read_tensor(reader: _Reader, end: int) -> tuple[bytes, bool]:
    """Return a tensor without its values if these are large, and whether they are."""
    parts: list[bytes] = []
    is_large = False
    while reader.position < end:
        number, length, start = reader.field(end)
        if number != _RAW_DATA or length < LARGE:
            parts += [start, reader.take(length)]
        else:
            is_large = True
            reader.skip(length)
    return b"".join(parts), is_large


def _message(number: int, content: bytes) -> bytes:
    """Return a field that holds a message."""
    return field_start(number, len(content)) + content


def field_start(number: int, length: int) -> bytes:
    """Return the bytes in front of a field's value.

    Args:
        number: Number of the field.
        length: Size of the value, in bytes.

    Returns:
        The field's tag and the length.
    """
    encoded = bytearray([number << 3 | _BYTES])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*encoded, length])
