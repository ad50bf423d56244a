"""Measure several calls in turns, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

REST = 0.15
"""Seconds of rest before a measurement. Idle thread pools spin for a while and slow down whatever runs next."""

Key = TypeVar("Key")
Value = TypeVar("Value")


def as_given(names: Sequence[Key], turn: int) -> Sequence[Key]:
    """Return the names in the same order in every turn."""
    return names


def in_turns(
    measurements: Mapping[Key, Callable[[], Value]],
    rounds: int,
    order: Callable[[Sequence[Key], int], Sequence[Key]] = as_given,
) -> dict[Key, list[Value]]:
    """Return what each measurement gives in each round; `order` arranges the measurements of one round."""
    found: dict[Key, list[Value]] = {name: [] for name in measurements}
    for turn in range(rounds):
        for name in order(list(measurements), turn):
            found[name].append(measurements[name]())
    return found


def rested_seconds(run: Callable[[], Any], rest: float = REST, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of one run, after a rest and one run that does not count."""
    time.sleep(rest)
    run()
    start = clock()
    run()
    return clock() - start


def clock_and_processor_seconds(run: Callable[[], Any], repeats: int = 1) -> tuple[float, float]:
    """Return the seconds on the clock and the processor seconds of all threads that one run takes."""
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats, (time.process_time() - processor) / repeats
