"""Run scripts in child processes and read their output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def last_line(errors: str, otherwise: str = "no message") -> str:
    """Return the last line of the standard error of a process, where Python names the exception."""
    return (errors.strip().splitlines() or [otherwise])[-1]


def json_of_script(*command: str) -> Any:
    """Run a Python script in a child process and return the JSON that it prints."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
