"""Program for test_kills.py that runs jobs in child processes and kills each job at another point.

    python killed_jobs.py MODEL IMAGES FOLDER FORMAT STEP

Job number N writes into FOLDER/N and kills its process with SIGKILL at its Nth call that changes a file or folder,
either before the call or halfway through a write. N grows by STEP until a job finishes. The program prints the number
of jobs that were killed. FORMAT is that of the results, or `evaluation` for jobs that measure explanations.
"""

from __future__ import annotations

import builtins
import io
import itertools
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
from seewhy.evaluation.evaluate import evaluate
from seewhy.explainer.explainer import Explainer

EVALUATION: dict[str, Any] = {"methods": ["gradcam", "backprop"], "metrics": ["deletion", "sparseness"]}
"""Settings of an evaluation."""
CALLS = ("fsync", "replace", "pwrite", "ftruncate", "unlink", "mkdir", "rmdir")


class Killer:
    """Counter of file system calls that kills the process at the call with the given number."""

    def __init__(self, number: int) -> None:
        self._left = itertools.count(number - 1, -1)  # several threads call `next`, which is atomic

    def count_call(self) -> bool:
        """Count one call and return True if the process must be killed at this call."""
        return next(self._left) == 0

    def wrap_call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.count_call():
                if name == "pwrite":
                    file, data, offset = arguments
                    real(file, data[: len(data) // 2], offset)
                kill()
            return real(*arguments, **keywords)

        return call

    def wrap_open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `open` so that the process can be killed halfway through a write to a new file."""

        def open_(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            file = real(path, mode, *arguments, **keywords)
            return HalfWrittenFile(file, self) if mode in ("xb", "wb") else file

        return open_


class HalfWrittenFile(io.BufferedIOBase):
    """A file whose `write` stores only half of the data when the process is killed."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self._file, self._killer = file, killer

    def write(self, data: Any) -> int:
        if self._killer.count_call():
            self._file.write(bytes(data)[: len(bytes(data)) // 2])
            self._file.flush()
            kill()
        return int(self._file.write(data))

    def __getattribute__(self, name: str) -> Any:
        if name in ("_file", "_killer", "write", "__class__"):
            return super().__getattribute__(name)
        return getattr(self._file, name)

    def __enter__(self) -> HalfWrittenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def kill() -> None:
    """Kill this process with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(number: int, model: str, images: str, folder: Path, form: str) -> bool:
    """Run job `number` in a child process and return True if it was killed before its end."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        if status:
            sys.exit(f"job {number} failed with wait status {status}")
        return False
    # Commit after every 5 files and never by time, so that slow machines make the same calls.
    commit.IMAGES_PER_SYNC, commit.SECONDS_PER_SYNC = 5, 1e9
    settings = Settings() if form in ("png", "evaluation") else Settings(format=form, shard_images=4)
    explainer = Explainer(model, threads=1)
    killer = Killer(number)
    for name in CALLS:
        setattr(os, name, killer.wrap_call(name, getattr(os, name)))
    io.open = builtins.open = killer.wrap_open(io.open)  # type: ignore[assignment]
    try:
        if form == "evaluation":
            evaluate(explainer, images, folder / str(number), **EVALUATION)
        else:
            explain_folder(explainer, images, folder / str(number), settings)
    except BaseException:  # noqa: BLE001  the child must not return into its parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    model, images, folder, form, step = sys.argv[1:]
    if form == "parquet":
        import pyarrow.parquet  # noqa: F401  import it before the first fork
    number, count = 1, 0
    while killed(number, model, images, Path(folder), form):
        number, count = number + int(step), count + 1
    print(count)


if __name__ == "__main__":
    main()
