"""Read what a child process prints."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def last_line(errors: str, otherwise: str = "no message") -> str:
    """Return the last line of what a process wrote to stderr, which is where Python names the error."""
    return (errors.strip().splitlines() or [otherwise])[-1]


def json_of_script(*command: str) -> Any:
    """Run a Python script in a process of its own, and return the JSON that it prints."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
