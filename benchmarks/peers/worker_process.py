"""Start the worker process of a tool and exchange commands and replies with it."""

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
# Limit for one reply in seconds. torch.compile writes and compiles C++ in its first call.
SECONDS = 1200.0
# Start of the failure message if the system killed the process, which it does when memory runs out.
KILLED = "exit status -9"


class ToolFailure(Exception):
    """The tool failed; the message is that of the tool, in one line."""


class Process:
    """Process of `workers/run_tool.py` under another interpreter, controlled by JSON lines."""

    def __init__(self, python: Path, job: str, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("w")
        command = [str(python), str(WORKERS / "run_tool.py"), job]
        # Share compiled code between all comparisons in this folder.
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
        """Wait until the worker has imported the tool."""
        self.receive()

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command without waiting for its reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ToolFailure(self._exit_message()) from None

    def receive(self, seconds: float = SECONDS) -> Mapping[str, Any]:
        """Wait for a reply and return it."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self._process.kill()
            raise ToolFailure(f"no reply after {seconds:.0f} s") from None
        if not line:
            raise ToolFailure(self._exit_message())
        reply = json.loads(line)
        if "error" in reply:
            raise ToolFailure(reply["error"])
        return reply

    def call(self, command: str, **arguments: Any) -> Mapping[str, Any]:
        """Send a command and return its reply."""
        self.send(command, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process, by force after 10 seconds."""
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

    def _exit_message(self) -> str:
        status = self._process.wait()
        self._log.flush()
        return f"exit status {status}: {last_line(Path(self._log.name).read_text(errors='replace'))}"[:300]


def environment(threads: int) -> dict[str, str]:
    """Return an environment with one thread count for all libraries and without the Python paths of this process."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_", "MKL_", "KMP_"))
    }
    return {
        **kept,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
