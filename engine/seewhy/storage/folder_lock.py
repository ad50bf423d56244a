"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from seewhy.errors import OutputError

NAME = ".seewhy.lock"

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The system lets it go when the process ends, however it ends.

    Raises:
        OutputError: another run holds it, or this system or file system has no such locks.
    """
    path = folder / NAME
    if fcntl is None:
        raise OutputError(f"{folder}: runs into a folder need file locks, which this system's Python does not have")
    try:
        # Not truncated: until the lock is ours, what it says is another's.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be opened: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise OutputError(
                f"{folder}: another run{f' ({holder})' if holder else ''} is writing here; wait for it to end, or "
                f"choose another output folder"
            ) from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be locked: {error.strerror or error}") from None
        with contextlib.suppress(OSError):  # on a full disk; it is for people only
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
