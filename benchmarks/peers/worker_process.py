"""A tool's worker process, as the driver sees it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.shared.child_processes import last_line

WORKERS = Path(__file__).resolve().parent / "workers"
# torch.compile writes and compiles C++ in its first call.
SECONDS = 1200.0
# How a failure begins where the system ended the process, which it does when memory runs out.
KILLED = "exit status -9"


class ToolFailure(Exception):
    """The tool failed; the message is its own, in one line."""


class Process:
    """Speaks JSON lines with `workers/run_tool.py` under another interpreter."""

    def __init__(self, python: Path, job: str, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("w")
        command = [str(python), str(WORKERS / "run_tool.py"), job]
        # Compiled once for all runs in this folder.
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(log.parent.parent / "inductor")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment(threads), **cache},
            cwd=WORKERS,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Wait until the tool is imported."""
        self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ToolFailure(self._how_it_ended()) from None

    def answer(self, seconds: float = SECONDS) -> Mapping[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self._process.kill()
            raise ToolFailure(f"no answer after {seconds:.0f} s") from None
        if not line:
            raise ToolFailure(self._how_it_ended())
        answer = json.loads(line)
        if "error" in answer:
            raise ToolFailure(answer["error"])
        return answer

    def ask(self, do: str, **arguments: Any) -> Mapping[str, Any]:
        self.send(do, **arguments)
        return self.answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        self._log.flush()
        return f"exit status {status}: {last_line(Path(self._log.name).read_text(errors='replace'))}"[:300]


def environment(threads: int) -> dict[str, str]:
    """The same number of threads for every library, and none of this process's own paths."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_", "MKL_", "KMP_"))
    }
    return {
        **kept,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
