"""Runs of code in a process of its own, which is stopped where it waits for a pipe or reads a device."""

from __future__ import annotations

import resource
import subprocess
import sys


def in_time(code: str, *arguments: object, seconds: float = 200, memory: int = 8 * 2**30) -> list[str]:
    """Run Python code, and return the lines that it prints.

    Raises:
        subprocess.TimeoutExpired: It has not ended after `seconds`.
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
