"""Test that runs the kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="run.py preloads the sanitizer with LD_PRELOAD")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_kernels_run_clean_under_sanitizers(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, RUN, tmp_path], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert " passed" in done.stdout
