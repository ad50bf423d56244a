"""Run code in a separate process with a time limit, for code that may block on a pipe or a device."""

from __future__ import annotations

import resource
import subprocess
import sys


def in_time(code: str, *arguments: object, seconds: float = 200, memory: int = 8 * 2**30) -> list[str]:
    """Run Python code in a separate process and return the lines that it prints.

    Raises:
        subprocess.TimeoutExpired: If the process is still running after `seconds`.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )
    return done.stdout.splitlines()
