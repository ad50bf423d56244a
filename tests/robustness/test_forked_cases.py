"""Tests of `support.forked_cases`: it reports crashes, hangs, warnings and memory of the forked processes."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import warnings

from support import forked_cases


def misbehave(case: str) -> str:
    """Misbehave as `case` says; the forked processes find this function by name."""
    forked_cases.stage(f"about to {case}")
    actions = {
        "raise": lambda: [].pop(),
        "crash": lambda: ctypes.string_at(0),
        "spin": lambda: [None for _ in iter(int, 1)],
        "sleep": lambda: time.sleep(1000),
        "want too much": lambda: len(bytes(1 << 30)),
        "leave": lambda: os._exit(3),
        "quit": lambda: sys.exit(3),
        "warn": lambda: warnings.warn("careful", stacklevel=1),
        "print": lambda: os.write(2, b"from C"),
        "grow": lambda: len(b"x" * (80 << 20)),
    }
    actions.get(case, lambda: None)()
    return case.upper()


def test_failures_are_reported() -> None:
    cases = ["well", "raise", "crash", "want too much", "leave", "quit", "warn", "print", "again"]
    for group in (1, 4, 100):
        outcomes = forked_cases.run("robustness.test_forked_cases:misbehave", cases, memory=256 << 20, group=group)
        assert [outcome.case for outcome in outcomes] == cases
        found = {outcome.case: outcome for outcome in outcomes}
        assert [case for case in cases if found[case].succeeded] == ["well", "again"]
        assert found["well"].result == "WELL"
        assert "IndexError: pop from empty list" in (found["raise"].raised or "")
        assert "MemoryError" in (found["want too much"].raised or "")
        assert "SystemExit" in (found["quit"].raised or "")
        assert (found["crash"].killed, found["crash"].stage) == ("SIGSEGV", "about to crash")
        assert found["leave"].killed == "status 3"
        assert "UserWarning: careful" in found["warn"].printed and found["print"].printed == "from C"


def test_hangs_are_reported() -> None:
    [spun] = forked_cases.run("robustness.test_forked_cases:misbehave", ["spin"], seconds=0)
    assert spun.killed == "SIGXCPU"
    slept, well = forked_cases.run("robustness.test_forked_cases:misbehave", ["sleep", "well"], wait=1, group=2)
    assert slept.killed == "SIGALRM" and well.succeeded


def test_memory_is_measured() -> None:
    small, large = forked_cases.run("robustness.test_forked_cases:misbehave", ["well", "grow"])
    assert small.peak < 40 << 20 <= 70 << 20 < large.peak < 200 << 20
