"""Record the engine's onnxruntime sessions and their runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import onnxruntime
import pytest
from numpy.typing import NDArray

from seewhy.runtime.sessions import RunPlan, SessionCache

Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"
Run: TypeAlias = "Callable[[frozenset[str], Feeds], dict[str, NDArray[Any]]]"


def replace_runs(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Run, frozenset[str], Feeds], dict[str, NDArray[Any]]]
) -> None:
    """Replace every run by `run(real, outputs, feeds)`, where `real(outputs, feeds)` is the original run.

    Each sub-batch is a run of its own, on any thread.
    """
    real = SessionCache.run_planned

    def run_planned(self: SessionCache, plan: RunPlan, feeds: Feeds) -> dict[str, NDArray[Any]]:
        return run(lambda _, feeds: real(self, plan, feeds), frozenset(plan.session.outputs), feeds)

    monkeypatch.setattr(SessionCache, "run_planned", run_planned)


def record_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str], int]]:
    """Return a list to which every session run appends (output names, input names, batch size)."""
    runs: list[tuple[set[str], set[str], int]] = []

    def recorded(real: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, NDArray[Any]]:
        [batch_size] = {len(value) for value in feeds.values()}
        runs.append((set(outputs), set(feeds), batch_size))
        return real(outputs, feeds)

    replace_runs(monkeypatch, recorded)
    return runs


def record_plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str], int]]:
    """Return a list to which every plan of runs appends (output names, input names, number of rows).

    The rows of a plan run in sub-batches, whose number depends on the network and on the number of threads.
    """
    plans: list[tuple[set[str], set[str], int]] = []
    real = SessionCache.plan

    def recorded(
        self: SessionCache, outputs: frozenset[str], given: Collection[str], rows: int, batch_size: int | None = None
    ) -> RunPlan:
        plans.append((set(outputs), set(given), rows))
        return real(self, outputs, given, rows, batch_size)

    monkeypatch.setattr(SessionCache, "plan", recorded)
    return plans


class StartedSessions:
    """Record of the onnxruntime sessions that start after its creation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[weakref.ref[onnxruntime.InferenceSession]] = []

        class Recorded(onnxruntime.InferenceSession):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                started.append(weakref.ref(self))

        self._started = started
        monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)

    @property
    def count(self) -> int:
        """Number of sessions that have started."""
        return len(self._started)

    def kept(self) -> list[set[str]]:
        """Return the output names of the sessions that still exist, in order of their start."""
        gc.collect()
        sessions = [session for reference in self._started if (session := reference()) is not None]
        return [{output.name for output in session.get_outputs()} for session in sessions]
