"""Lock of an output folder, which allows one job at a time."""

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
    """Hold the lock of an output folder. The system releases it when the process ends, for whatever reason.

    Args:
        folder: The output folder, which must exist.

    Yields:
        Nothing, while the lock is held.

    Raises:
        OutputError: If another job holds the lock, or the system or the file system does not support such locks.
    """
    path = folder / NAME
    if fcntl is None:
        raise OutputError(f"{folder}: jobs need file locks, which Python does not have on this system")
    try:
        # Do not truncate the file before the lock is held: until then, its content belongs to another job.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be opened: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise OutputError(
                f"{folder}: another job{f' ({holder})' if holder else ''} is writing here; wait for it to end, or "
                f"choose another output folder"
            ) from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be locked: {error.strerror or error}") from None
        with contextlib.suppress(OSError):  # a full disk; the text is only for people
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
