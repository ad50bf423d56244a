"""Run Python on a CPU without AVX-512 and VNNI, as valgrind emulates one."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

needs_valgrind = pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or platform.machine() != "x86_64"
    # With CI=true, a missing valgrind fails the tests; .ci/run installs it.
    or (shutil.which("valgrind") is None and os.environ.get("CI") != "true"),
    reason="needs valgrind, on Linux and x86-64",
)


def without_avx512(code: str, *arguments: object) -> str:
    """Run a program in a process that sees AVX2 but neither AVX-512 nor VNNI.

    Args:
        code: Python code.
        *arguments: Arguments of the program.

    Returns:
        What it wrote to the standard output.
    """
    command = ["valgrind", "--tool=none", "--quiet", sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
