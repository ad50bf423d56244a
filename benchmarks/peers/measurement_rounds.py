"""Measure the tools of a group in rounds: one tool works at a time, and the others are idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import result_agreement
from benchmarks.peers.worker_process import Process, ToolFailure
from benchmarks.shared import round_statistics
from benchmarks.shared.machine_facts import Clock
from benchmarks.shared.timing_in_turns import REST

# Seconds. A longer call needs no unmeasured call before it, because waking threads takes only microseconds.
LONG_CALL = 0.5
# Seconds for which the load of the machine is observed before a measurement, and the possible error in seconds of the
# system's CPU times, which have a resolution of 10 ms.
OBSERVED_SECONDS = 0.5
CLOCK_ERROR = 0.03
# Maximum number of tries of one turn. The last one counts, even if other programs disturbed it.
MOST_TRIES = 40


@dataclass(frozen=True)
class Rival:
    """One tool with its settings, as measured for a question."""

    name: str
    environment: str
    job: str
    """MODULE:FUNCTION in workers/."""
    compare: bool = True
    """True if its result should equal that of SeeWhy."""
    approximate: bool = False
    """True if its result cannot be equal, because it computes in fewer bits. Its correlation is shown instead."""
    slow: bool = False
    """True if the measurement of the aims leaves it out to save time."""
    threads: int | None = None
    """Number of threads, or None for the number of the comparison."""
    options: Mapping[str, Any] = field(default_factory=dict)
    models: Sequence[str] | None = None
    """Models to measure, or None for all. Some rivals are limited because compilation takes minutes."""
    batches: Sequence[int] | None = None
    """Batch sizes to measure, or None for all."""

    def tries(self, model: str, batch: int) -> bool:
        """Return True if the rival is measured with this model and batch size."""
        return (self.models is None or model in self.models) and (self.batches is None or batch in self.batches)


@dataclass
class Tool:
    """A rival with its running process and its measurements."""

    rival: Rival
    process: Process
    failure: str | None = None
    note: str = ""
    peak_bytes: int | None = None
    seconds: float = 0.0
    calls: int = 1
    times: list[float] = field(default_factory=list)
    """Median seconds of the calls in each round."""

    def attempt(self, action: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Call `action` and return its result, or None if the tool fails now or failed before."""
        if self.failure is None:
            try:
                return action()
            except ToolFailure as failure:
                self.failure = str(failure)
        return None


@dataclass(frozen=True)
class Group:
    """Tools that are measured together for one question, one model and one batch size."""

    tools: Sequence[Tool]
    tasks: Mapping[str, Mapping[str, Any]]
    """Rival name -> task for the worker command `load`."""
    ours: str
    floor: str | None
    compare: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]
    scratch: Path


def measure(group: Group, rounds: int, limit: float | None = None) -> dict[str, Any]:
    """Load all tools, compare their results, measure the rounds, and return the record of the group.

    With `limit`, a turn starts when other programs use fewer cores than that, and is repeated if they used more
    during the turn.
    """
    for tool in group.tools:
        tool.times, tool.note, tool.calls, tool.peak_bytes = [], "", 1, None
        tool.attempt(lambda tool=tool: tool.process.send("load", task=group.tasks[tool.rival.name]) or {})
    for tool in group.tools:
        tool.attempt(tool.process.receive)
    results = {tool.rival.name: _first_result(tool, group.scratch) for tool in group.tools}
    comparisons = {
        name: _comparison(tool.rival, group, results[group.ours], result)
        for tool in group.tools
        if (name := tool.rival.name) != group.ours and tool.rival.compare
        if (result := results[name]) is not None and results[group.ours] is not None
    }
    clock = Clock()
    monitor = LoadMonitor(clock, limit)
    for turn in range(rounds):
        working = [tool.rival.name for tool in group.tools if tool.failure is None]
        for name in round_statistics.order(working, turn) if working else []:
            take_turn(next(tool for tool in group.tools if tool.rival.name == name), monitor)
    return {
        "rounds": rounds,
        "rivals": {tool.rival.name: _record(tool, group, comparisons) for tool in group.tools},
        "others_share": monitor.share(),
        **({} if limit is None else {"quiet": limit, "made_again": monitor.repeated}),
    }


def _comparison(rival: Rival, group: Group, ours: np.ndarray, theirs: np.ndarray) -> Mapping[str, Any]:
    """Return the fields of the record that compare two results: `agreement`, or `correlation` if it is approximate."""
    if rival.approximate and ours.shape == theirs.shape:
        return {"correlation": result_agreement.correlation(ours, theirs)}
    return {"agreement": result_agreement.agreement_of(group.compare, ours, theirs)}


def _first_result(tool: Tool, scratch: Path) -> np.ndarray | None:
    """Return the result of the tool's first call, and set the number of calls per measurement."""
    path = scratch / "result.npy"
    time.sleep(REST)
    reply = tool.attempt(lambda: tool.process.call("first", result=str(path)))
    if reply is None:
        return None
    tool.note = reply["note"]
    # The first call warms up, and the second measures how long a call takes.
    short = reply["seconds"] < 10 * LONG_CALL
    second = tool.attempt(lambda: tool.process.call("run", count=1, warm=False)) if short else None
    tool.seconds = second["times"][0] if second else reply["seconds"]
    tool.calls = round_statistics.repeats(tool.seconds)
    return np.load(path)


def take_turn(tool: Tool, monitor: LoadMonitor) -> None:
    """Measure one tool, and repeat the measurement while other programs disturb it."""
    for _ in range(MOST_TRIES):
        monitor.wait()
        time.sleep(REST)
        monitor.start(tool)
        reply = tool.attempt(lambda: tool.process.call("run", count=tool.calls, warm=tool.seconds < LONG_CALL))
        if monitor.stop(tool) or reply is None:
            break
    if reply is not None:
        tool.times.append(round_statistics.summary(reply["times"])["median"])
        tool.seconds = tool.times[-1]
        tool.peak_bytes = reply.get("peak_bytes")


class LoadMonitor:
    """Monitor of the CPU time that idle tools and other programs use while a tool is measured."""

    def __init__(self, clock: Clock, limit: float | None) -> None:
        self.repeated = 0
        self._clock, self._limit = clock, limit
        self._other_seconds = self._measured_seconds = 0.0
        self._is_measurable = True

    def wait(self) -> None:
        """Wait until other programs use little CPU time, without a time limit."""
        while self._limit is not None and (before := self._clock.machine()) is not None:
            time.sleep(OBSERVED_SECONDS)
            if (self._clock.machine() or 0.0) - before < self._limit * OBSERVED_SECONDS:
                return

    def start(self, tool: Tool) -> None:
        self._before = (time.perf_counter(), self._clock.machine(), self._clock.process(tool.process.pid))

    def stop(self, tool: Tool) -> bool:
        """Return True if the turn counts, False if other programs disturbed it."""
        after = (time.perf_counter(), self._clock.machine(), self._clock.process(tool.process.pid))
        if None in (*self._before, *after):
            self._is_measurable = False
            return True
        elapsed, machine, own = (late - early for late, early in zip(after, self._before, strict=True))
        if self._limit is not None and machine - own > self._limit * elapsed + CLOCK_ERROR:
            self.repeated += 1
            return False
        self._measured_seconds += elapsed
        self._other_seconds += machine - own
        return True

    def share(self) -> float | None:
        """Return the average number of cores that other programs used; 0.1 is a tenth of one core."""
        return (
            round(max(0.0, self._other_seconds / self._measured_seconds), 4)
            if self._is_measurable and self._measured_seconds
            else None
        )


def _record(tool: Tool, group: Group, comparisons: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rival = tool.rival
    record: dict[str, Any] = {"environment": rival.environment}
    if rival.threads is not None:
        record["threads"] = rival.threads
    if tool.note:
        record["note"] = tool.note
    record |= comparisons.get(rival.name, {})
    if tool.failure is not None:
        return {**record, "failed": tool.failure}
    by_name = {other.rival.name: other for other in group.tools}
    spread = round_statistics.summary(tool.times)
    if tool.peak_bytes is not None:
        record["peak_bytes"] = tool.peak_bytes
    record |= {"calls": tool.calls, "ms": {key: 1e3 * value for key, value in spread.items()}}
    record["rounds_ms"] = [round(1e3 * value, 5) for value in tool.times]
    for key, name in (("to_floor", group.floor), ("to_ours", group.ours)):
        if name is not None and name != rival.name and by_name[name].failure is None:
            record[key] = round_statistics.ratio(tool.times, by_name[name].times)
    return record
