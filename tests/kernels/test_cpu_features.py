"""Tests of `_core.cpu_features`: it agrees with the system."""

from __future__ import annotations

import platform
import sys

import pytest

from seewhy import _core


@pytest.fixture(scope="module", autouse=True)
def every_isa() -> None:
    """The features do not depend on the instruction set in use."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of the processor")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64")
def test_features_agree_with_the_system() -> None:
    with open("/proc/cpuinfo") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    known = ("sse2", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    assert _core.cpu_features() == tuple(name for name in known if name in flags)
