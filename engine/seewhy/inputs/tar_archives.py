"""Read images from tar archives, such as the shards of WebDataset, from start to end and without unpacking them."""

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
from seewhy.images.decoding import listed_extensions
from seewhy.images.unsupported_formats import extension
from seewhy.inputs.hidden_files import is_hidden

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# A small compressed archive may expand to a huge member.
MAX_MEMBER_BYTES = 256 * 2**20
"""Maximum size of a member, in bytes."""
# Types of headers with long content, such as long names. tarfile reads them whole.
_HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_MAX_HEADER_BYTES = 2**20
# Maximum number of zeros after the end mark. They fill up a block of a tape.
_MAX_PADDING_BYTES = 64 * 2**20
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(frozen=True)
class Member:
    """An image in an archive, or an error."""

    name: str | None
    """Name of the member; None if the error concerns the whole archive."""
    content: bytes | None = None
    """Content of the image file, or None if there is an error."""
    error: ImageError | None = None
    """Why the member or the rest of the archive cannot be read."""


class _Entry(tarfile.TarInfo):
    """A header that records why an archive ends, and refuses names of gigabytes."""

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
        if entry.type in _HEADER_TYPES and not 0 <= entry.size <= _MAX_HEADER_BYTES:
            raise tarfile.InvalidHeaderError(f"a header of {entry.size} bytes")  # type: ignore[attr-defined]
        return entry


def is_tar(path: str) -> bool:
    """Return whether the name of a file is that of a tar archive."""
    return path.lower().endswith(_ENDINGS)


def stem(path: str) -> str:
    """Return the name of an archive without its ending, or the whole name if only a dot would be left."""
    name = os.path.basename(path)
    ending = max((ending for ending in _ENDINGS if name.lower().endswith(ending)), key=len, default="")
    rest = name[: len(name) - len(ending)]
    return name if rest in ("", ".") else rest


def members(path: str) -> Iterator[Member]:
    """Yield the images in an archive, in order. Hidden members are skipped, and members of hidden folders.

    If the archive is damaged, the last member is an error about the archive itself. A member that is a link or a device
    is an error, too: links are not followed.

    Args:
        path: Path of the archive.

    Yields:
        The images and errors.

    Raises:
        OSError: If the system allows no more open files.
    """
    last, count = "its start", 0
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_Entry) as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile collects all members
                if entry.isdir() or is_hidden(entry.name) or extension(entry.name) not in listed_extensions():
                    continue
                yield _read(archive, entry, path)
                last, count = entry.name, count + 1
            _check_end(archive)
        if not count:
            yield Member(None, error=ImageError(f"{path}: the archive holds no images"))
    except ImageError as error:
        yield Member(None, error=error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # not the archive's fault
            raise
        if isinstance(error, OSError) and error.strerror:
            yield Member(None, error=ImageError(f"{path}: cannot be read: {error.strerror}"))
            return
        reason = short(str(error)) or type(error).__name__
        message = f"{path}: the archive is damaged after {short(last)}: {reason}; the members after it are lost"
        yield Member(None, error=ImageError(message))


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    """Open an archive, and decompress it if necessary.

    Unlike tarfile's own decompression, reading to the end verifies the checksum of gzip.
    """
    with open_regular(path) as file:
        start = file.read(8)
        file.seek(0)
        decompress = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
        if decompress is None:
            yield file
            return
        with decompress(file) as content:
            yield content


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise a ReadError if the archive has no end mark, a damaged header, or data after its end mark."""
    ended_by = getattr(archive, "ended_by", None)
    if not isinstance(ended_by, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise tarfile.ReadError(f"the end mark is missing ({ended_by})")
    room = _MAX_PADDING_BYTES
    # A header that was overwritten with zeros equals an end mark.
    while rest := archive.fileobj.read(1 << 16):
        room -= len(rest)
        if rest.strip(b"\0") or room < 0:
            raise tarfile.ReadError("it has data after its end mark")


def _read(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> Member:
    size = len(os.fsencode(entry.name))
    if size > LONGEST_TEXT:  # every row of a shard would take as much room
        shortened = f"{entry.name[:100]}...{hashlib.sha256(os.fsencode(entry.name)).hexdigest()[:16]}"
        message = f"{path}#{short(shortened)}: the name has {size} bytes; the maximum is {LONGEST_TEXT}"
        return Member(shortened, error=ImageError(message))
    name = f"{path}#{entry.name}"
    if not entry.isreg():
        message = f"{name}: is a link or a device, not a file; add the image itself to the archive"
        return Member(entry.name, error=ImageError(message))
    if entry.size > MAX_MEMBER_BYTES:
        message = f"{name}: has {entry.size} bytes; the maximum is {MAX_MEMBER_BYTES}"
        return Member(entry.name, error=ImageError(message))
    file = archive.extractfile(entry)
    content = b"" if file is None else file.read()
    if len(content) != entry.size:
        raise tarfile.ReadError(f"{entry.name} has {len(content)} of {entry.size} bytes")
    return Member(entry.name, content)
