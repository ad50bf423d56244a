"""Rounds: every tool in turn, one at a time, with the others idle."""

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

# A call that takes this long is not preceded by an unmeasured one: waking threads takes microseconds.
LONG = 0.5
# Seconds that a machine is watched before it counts as quiet; and what the system's clocks, which tick a hundred times
# a second, may be wrong by.
LOOK = 0.5
TICKS = 0.03
# Of one turn. The last one counts, whatever others did meanwhile.
MOST_TRIES = 40


@dataclass(frozen=True)
class Rival:
    """One way to answer a question."""

    name: str
    environment: str
    job: str
    """MODULE:FUNCTION in workers/."""
    compare: bool = True
    """Whether its answer is meant to be the same as SeeWhy's."""
    threads: int | None = None
    """Where it is not the run's own number."""
    options: Mapping[str, Any] = field(default_factory=dict)
    models: Sequence[str] | None = None
    """The models that it is tried with, where that is not all: to compile takes minutes."""
    batches: Sequence[int] | None = None

    def tries(self, model: str, batch: int) -> bool:
        return (self.models is None or model in self.models) and (self.batches is None or batch in self.batches)


@dataclass
class Tool:
    """A rival whose process is running."""

    rival: Rival
    process: Process
    failure: str | None = None
    note: str = ""
    seconds: float = 0.0
    calls: int = 1
    times: list[float] = field(default_factory=list)
    """One for each round, in seconds: the median of its calls."""

    def attempt(self, what: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """None where the tool failed, now or before."""
        if self.failure is None:
            try:
                return what()
            except ToolFailure as failure:
                self.failure = str(failure)
        return None


@dataclass(frozen=True)
class Group:
    """What is measured side by side: one question, one model, one batch size."""

    tools: Sequence[Tool]
    tasks: Mapping[str, Mapping[str, Any]]
    """Rival -> what `load` gets."""
    ours: str
    floor: str | None
    compare: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]
    scratch: Path


def measure(group: Group, rounds: int, limit: float | None = None) -> dict[str, Any]:
    """Load all, compare their answers, then go round; returns the group's record.

    With `limit`, a turn waits until other programs keep fewer processors than that busy, and is made again where they
    did not stay so.
    """
    for tool in group.tools:
        tool.times, tool.note, tool.calls = [], "", 1
        tool.attempt(lambda tool=tool: tool.process.send("load", task=group.tasks[tool.rival.name]) or {})
    for tool in group.tools:
        tool.attempt(tool.process.answer)
    answers = {tool.rival.name: _first(tool, group.scratch) for tool in group.tools}
    agreements = {
        name: result_agreement.of(group.compare, answers[group.ours], answer)
        for tool in group.tools
        if (name := tool.rival.name) != group.ours and tool.rival.compare
        if (answer := answers[name]) is not None and answers[group.ours] is not None
    }
    clock = Clock()
    quiet = Quiet(clock, limit)
    for turn in range(rounds):
        working = [tool.rival.name for tool in group.tools if tool.failure is None]
        for name in round_statistics.order(working, turn) if working else []:
            take_turn(next(tool for tool in group.tools if tool.rival.name == name), quiet)
    return {
        "rounds": rounds,
        "rivals": {tool.rival.name: _record(tool, group, agreements) for tool in group.tools},
        "others_share": quiet.share(),
        **({} if limit is None else {"quiet": limit, "made_again": quiet.made_again}),
    }


def _first(tool: Tool, scratch: Path) -> np.ndarray | None:
    """Its answer; settles how many calls make a measurement."""
    path = scratch / "answer.npy"
    time.sleep(REST)
    done = tool.attempt(lambda: tool.process.ask("first", answer=str(path)))
    if done is None:
        return None
    tool.note = done["note"]
    # The first call warms up; the second says how long one takes.
    short = done["seconds"] < 10 * LONG
    again = tool.attempt(lambda: tool.process.ask("run", count=1, warm=False)) if short else None
    tool.seconds = again["times"][0] if again else done["seconds"]
    tool.calls = round_statistics.repeats(tool.seconds)
    return np.load(path)


def take_turn(tool: Tool, quiet: Quiet) -> None:
    """Measure one tool once, and again while other programs disturb it."""
    for _ in range(MOST_TRIES):
        quiet.wait()
        time.sleep(REST)
        quiet.start(tool)
        done = tool.attempt(lambda: tool.process.ask("run", count=tool.calls, warm=tool.seconds < LONG))
        if quiet.stop(tool) or done is None:
            break
    if done is not None:
        tool.times.append(round_statistics.summary(done["times"])["median"])
        tool.seconds = tool.times[-1]


class Quiet:
    """How much processor time went elsewhere while a tool was measured: to idle tools, or to other programs."""

    def __init__(self, clock: Clock, limit: float | None) -> None:
        self.made_again = 0
        self._clock, self._limit = clock, limit
        self._elsewhere = self._elapsed = 0.0
        self._known = True

    def wait(self) -> None:
        """Until others have left the machine alone for a while; forever, if need be."""
        while self._limit is not None and (before := self._clock.machine()) is not None:
            time.sleep(LOOK)
            if (self._clock.machine() or 0.0) - before < self._limit * LOOK:
                return

    def start(self, tool: Tool) -> None:
        self._before = (time.perf_counter(), self._clock.machine(), self._clock.process(tool.process.pid))

    def stop(self, tool: Tool) -> bool:
        """Whether the turn counts."""
        after = (time.perf_counter(), self._clock.machine(), self._clock.process(tool.process.pid))
        if None in (*self._before, *after):
            self._known = False
            return True
        elapsed, machine, own = (late - early for late, early in zip(after, self._before, strict=True))
        if self._limit is not None and machine - own > self._limit * elapsed + TICKS:
            self.made_again += 1
            return False
        self._elapsed += elapsed
        self._elsewhere += machine - own
        return True

    def share(self) -> float | None:
        """Processors that others kept busy, on average: 0.1 is a tenth of one core."""
        return round(max(0.0, self._elsewhere / self._elapsed), 4) if self._known and self._elapsed else None


def _record(tool: Tool, group: Group, agreements: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rival = tool.rival
    record: dict[str, Any] = {"environment": rival.environment}
    if rival.threads is not None:
        record["threads"] = rival.threads
    if tool.note:
        record["note"] = tool.note
    if rival.name in agreements:
        record["agreement"] = agreements[rival.name]
    if tool.failure is not None:
        return {**record, "failed": tool.failure}
    by_name = {other.rival.name: other for other in group.tools}
    spread = round_statistics.summary(tool.times)
    record |= {"calls": tool.calls, "ms": {key: 1e3 * value for key, value in spread.items()}}
    record["rounds_ms"] = [round(1e3 * value, 5) for value in tool.times]
    for key, name in (("to_floor", group.floor), ("to_ours", group.ours)):
        if name is not None and name != rival.name and by_name[name].failure is None:
            record[key] = round_statistics.ratio(tool.times, by_name[name].times)
    return record
