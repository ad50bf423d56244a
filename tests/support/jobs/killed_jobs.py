"""Program for test_kills.py: jobs that kill themselves at one point after the other, each in a process of its own.

    python killed_jobs.py MODEL PHOTOS FOLDER FORMAT STEP

Job number N writes into FOLDER/N and ends by SIGKILL at its Nth call that changes a file or folder: before the call, or
in the middle of what it writes. N grows by STEP until a job reaches its end. The program prints how many were killed.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seewhy.bulk import commit
from seewhy.bulk.explain_folder import explain_folder
from seewhy.bulk.settings import Settings
from seewhy.explainer.explainer import Explainer

CALLS = ("fsync", "replace", "pwrite", "ftruncate", "unlink", "mkdir", "rmdir")


class Killer:
    """Kills the process at its call of this number."""

    def __init__(self, number: int) -> None:
        self._left = number

    def due(self) -> bool:
        self._left -= 1
        return self._left == 0

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if self.due():
                if name == "pwrite":
                    file, data, offset = arguments
                    real(file, data[: len(data) // 2], offset)
                kill()
            return real(*arguments, **more)

        return call

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `open` so that a write to a new file kills the process after half of the data."""

        def open_(path: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            file = real(path, mode, *arguments, **more)
            return Half(file, self) if mode in ("xb", "wb") else file

        return open_


class Half(io.BufferedIOBase):
    """A file of which only half is written when the process is killed."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self._file, self._killer = file, killer

    def write(self, data: Any) -> int:
        if self._killer.due():
            self._file.write(bytes(data)[: len(bytes(data)) // 2])
            self._file.flush()
            kill()
        return int(self._file.write(data))

    def __getattribute__(self, name: str) -> Any:
        if name in ("_file", "_killer", "write", "__class__"):
            return super().__getattribute__(name)
        return getattr(self._file, name)

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def kill() -> None:
    """End this process by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(number: int, model: str, photos: str, folder: Path, form: str) -> bool:
    """Run job `number`, and return whether it was killed before its end."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        if status:
            sys.exit(f"run {number} failed with {status}")
        return False
    commit.IMAGES_PER_SYNC, commit.SECONDS_PER_SYNC = 5, 1e9  # the same calls every time, on a slow machine too
    settings = Settings() if form == "png" else Settings(format=form, shard_images=4)
    explainer = Explainer(model, threads=1)
    killer = Killer(number)
    for name in CALLS:
        setattr(os, name, killer.wrapped(name, getattr(os, name)))
    io.open = builtins.open = killer.opened(io.open)  # type: ignore[assignment]
    try:
        explain_folder(explainer, photos, folder / str(number), settings)
    except BaseException:  # noqa: BLE001  this process must not go on with its parent's work
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    model, photos, folder, form, step = sys.argv[1:]
    if form == "parquet":
        import pyarrow.parquet  # noqa: F401  before the processes part
    number, count = 1, 0
    while killed(number, model, photos, Path(folder), form):
        number, count = number + int(step), count + 1
    print(count)


if __name__ == "__main__":
    main()
