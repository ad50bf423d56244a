"""Tests of instruction sets: all give the same bits, and an environment variable chooses one at load."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from seewhy import _core
from support.kernel_calls import ARGUMENTS, KERNELS, call

LOAD = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("seewhy._core", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
print(module.isa())
"""


@pytest.fixture(scope="module", autouse=True)
def every_isa() -> None:
    """These tests choose instruction sets themselves."""


def load(name: str | None) -> subprocess.CompletedProcess[str]:
    """Load the module in its own process."""
    environment = {key: value for key, value in os.environ.items() if key != "SEEWHY_ISA"}
    if name is not None:
        environment["SEEWHY_ISA"] = name
    command = [sys.executable, "-c", LOAD, str(_core.__file__)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("size", [(2, 37, 53), (3, 16, 32), (1, 224, 224), (2, 3, 1)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bits_do_not_depend_on_the_instruction_set(kernel: str, size: tuple[int, int, int]) -> None:
    arguments = ARGUMENTS[kernel](*size)
    before = _core.isa()
    try:
        results = []
        for name in _core.isas():
            _core.use_isa(name)
            assert _core.isa() == name
            results.append(call(kernel, arguments))
    finally:
        _core.use_isa(before)
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it may be built for several processors")
def test_the_baseline_comes_first() -> None:
    assert _core.isas()[0] == ("sse2" if platform.machine() == "x86_64" else "plain")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of the processor")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64")
def test_supported_instruction_sets_agree_with_the_system() -> None:
    with open("/proc/cpuinfo") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    assert ("avx2" in _core.isas()) == ("avx2" in flags)


def test_the_best_is_chosen_at_load() -> None:
    assert load(None).stdout.strip() == _core.isas()[-1]
    assert load("").stdout.strip() == _core.isas()[-1]


@pytest.mark.parametrize("name", _core.isas())
def test_the_environment_chooses(name: str) -> None:
    assert load(name).stdout.strip() == name


@pytest.mark.parametrize("name", ["avx9", "AVX2", " ", "a\x1b[31m\nb"])
def test_a_wrong_name_in_the_environment_is_one_line(name: str) -> None:
    done = load(name)
    assert done.returncode == 1
    shown = "".join(c if " " <= c <= "~" else "?" for c in name)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: environment variable SEEWHY_ISA: no instruction set '{shown}' in this build; "
        f"this processor can run {', '.join(_core.isas())}"
    )


def test_a_wrong_name_changes_nothing() -> None:
    before = _core.isa()
    with pytest.raises(ValueError, match="^no instruction set 'mmx' in this build; this processor can run "):
        _core.use_isa("mmx")
    assert _core.isa() == before
