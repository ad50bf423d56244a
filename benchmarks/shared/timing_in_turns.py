"""Measure several calls in alternating rounds, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

REST = 0.15
"""Pause before a measurement in seconds. Idle thread pools spin for a while and slow down the next call."""

Key = TypeVar("Key")
Value = TypeVar("Value")


def in_given_order(names: Sequence[Key], turn: int) -> Sequence[Key]:
    """Return the names in the same order in every turn."""
    return names


def in_turns(
    measurements: Mapping[Key, Callable[[], Value]],
    rounds: int,
    order: Callable[[Sequence[Key], int], Sequence[Key]] = in_given_order,
) -> dict[Key, list[Value]]:
    """Return the value of each measurement in each round. `order` gives the order of the names within a round."""
    found: dict[Key, list[Value]] = {name: [] for name in measurements}
    for turn in range(rounds):
        for name in order(list(measurements), turn):
            found[name].append(measurements[name]())
    return found


def seconds_after_pause(
    run: Callable[[], Any], rest: float = REST, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of one call, after a pause and one unmeasured call."""
    time.sleep(rest)
    run()
    start = clock()
    run()
    return clock() - start


def elapsed_and_cpu_seconds(run: Callable[[], Any], repeats: int = 1) -> tuple[float, float]:
    """Return the elapsed seconds and the CPU seconds of all threads for one call."""
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats, (time.process_time() - processor) / repeats
