"""Open regular files, refuse pipes and devices, and detect changes of files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import IO

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class FileStamp:
    """Size and times of a file, to detect changes."""

    size: int
    """Size in bytes."""
    mtime_ns: int
    """Time of the last modification, in nanoseconds since 1970."""
    ctime_ns: int
    """Time of the last change of any kind, in nanoseconds since 1970. Unlike `mtime_ns`, it cannot be set back."""

    @classmethod
    def of(cls, found: os.stat_result) -> FileStamp:
        """Return the stamp of a file from its `os.stat_result`."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


MISSING = FileStamp(-1, -1, -1)
"""Stamp of a file that does not exist."""


def file_stamp(path: str | os.PathLike[str]) -> FileStamp:
    """Return the stamp of a file, or MISSING if it does not exist or cannot be accessed."""
    try:
        return FileStamp.of(os.stat(path))
    except (OSError, ValueError):
        return MISSING


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading, following symbolic links.

    Args:
        path: Path of the file.

    Returns:
        The open binary file.

    Raises:
        OSError: If the file cannot be opened, or is a folder, a pipe, a socket or a device; `strerror` says which.
        ValueError: If the path holds a null character.
    """
    # Opening a device can have side effects, so the file is checked before it is opened. It is checked again
    # afterwards, because it may have been replaced in between. With O_NONBLOCK, opening a pipe does not wait for
    # another program.
    _require_regular(os.stat(path).st_mode, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_regular(mode: int, path: str | os.PathLike[str]) -> None:
    """Raise an OSError if `mode`, the `st_mode` of a file, is not that of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a file of a known kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of an open file, as 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    while block := file.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()
