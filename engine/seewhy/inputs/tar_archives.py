"""Images in tar archives, such as WebDataset's shards, read from front to back and never unpacked."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import short
from seewhy.contract.constants import LONGEST_TEXT
from seewhy.errors import ImageError
from seewhy.images.decoding import extensions

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# A compressed archive may hold anything.
MOST_BYTES = 256 * 2**20
"""Size of the largest member that is read, in bytes."""
# Headers that hold more than fits into one, such as long names; these are read whole.
_HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_MOST_HEADER_BYTES = 2**20
# Zeros behind the end mark, which fill up a block of a tape.
_MOST_PADDING = 64 * 2**20
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(frozen=True)
class Member:
    """An image in an archive, or what is wrong there."""

    name: str | None
    """None: of the archive itself."""
    content: bytes | None = None
    error: ImageError | None = None


class _Entry(tarfile.TarInfo):
    """Notes why an archive has no further header, and reads no name of gigabytes."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Entry:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.ended_by = error  # type: ignore[attr-defined]
            raise

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _HEADER_TYPES and not 0 <= entry.size <= _MOST_HEADER_BYTES:
            raise tarfile.InvalidHeaderError(f"a header of {entry.size} bytes")  # type: ignore[attr-defined]
        return entry


def is_tar(path: str) -> bool:
    return path.lower().endswith(_ENDINGS)


def stem(path: str) -> str:
    """Return the archive's name without its endings, or the whole name where nothing but a dot would be left."""
    name = os.path.basename(path)
    ending = max((ending for ending in _ENDINGS if name.lower().endswith(ending)), key=len, default="")
    rest = name[: len(name) - len(ending)]
    return name if rest in ("", ".") else rest


def members(path: str) -> Iterator[Member]:
    """The images in an archive, in its order. Where it is damaged the last one is an error of the archive itself.

    An image that is no file there, but a link or a device, is an error of its own: links are not followed.
    """
    last, count = "its beginning", 0
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_Entry) as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # which it collects
                if entry.isdir() or os.path.splitext(entry.name)[1].lower() not in extensions():
                    continue
                yield _read(archive, entry, path)
                last, count = entry.name, count + 1
            _check_end(archive)
        if not count:
            yield Member(None, error=ImageError(f"{path}: the archive holds no images"))
    except ImageError as error:
        yield Member(None, error=error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # of which it knows nothing
            raise
        if isinstance(error, OSError) and error.strerror:
            yield Member(None, error=ImageError(f"{path}: cannot be read: {error.strerror}"))
            return
        reason = short(str(error)) or type(error).__name__
        yield Member(
            None, error=ImageError(f"{path}: damaged archive behind {short(last)}: {reason}; what follows is lost")
        )


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    """Open the archive's content.

    Unlike tarfile's own decompression, reading to the end verifies gzip's checksum.
    """
    with open_regular(path) as file:
        start = file.read(8)
        file.seek(0)
        opens = next((opens for magic, opens in _PACKED.items() if start.startswith(magic)), None)
        if opens is None:
            yield file
            return
        with opens(file) as unpacked:
            yield unpacked


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises:
    ReadError: it was cut off between two members, has a damaged header, or goes on behind its end mark.
    """
    ended_by = getattr(archive, "ended_by", None)
    if not isinstance(ended_by, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise tarfile.ReadError(f"the end mark is missing ({ended_by})")
    room = _MOST_PADDING
    # A header that was overwritten with zeros looks like the end mark.
    while rest := archive.fileobj.read(1 << 16):
        room -= len(rest)
        if rest.strip(b"\0") or room < 0:
            raise tarfile.ReadError("it goes on behind its end mark")


def _read(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> Member:
    size = len(os.fsencode(entry.name))
    if size > LONGEST_TEXT:  # every row of a shard would get as much room
        called = f"{entry.name[:100]}...{hashlib.sha256(os.fsencode(entry.name)).hexdigest()[:16]}"
        error = ImageError(f"{path}#{short(called)}: a name of {size} bytes, and {LONGEST_TEXT} are the most")
        return Member(called, error=error)
    name = f"{path}#{entry.name}"
    if not entry.isreg():
        return Member(entry.name, error=ImageError(f"{name}: a link or a device; put the image itself there"))
    if entry.size > MOST_BYTES:
        return Member(entry.name, error=ImageError(f"{name}: {entry.size} bytes, and {MOST_BYTES} are the most"))
    file = archive.extractfile(entry)
    content = b"" if file is None else file.read()
    if len(content) != entry.size:
        raise tarfile.ReadError(f"{entry.name} has {len(content)} of {entry.size} bytes")
    return Member(entry.name, content)
