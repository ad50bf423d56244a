"""Record the engine's onnxruntime sessions and their runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from functools import partial
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

    Sub-batches of multi-pass methods are runs of their own, on any thread.
    """
    real, real_planned = SessionCache.run, SessionCache.run_planned

    def run_planned(self: SessionCache, plan: RunPlan, feeds: Feeds) -> dict[str, NDArray[Any]]:
        return run(lambda _, feeds: real_planned(self, plan, feeds), frozenset(plan.session.outputs), feeds)

    monkeypatch.setattr(SessionCache, "run", lambda self, outputs, feeds: run(partial(real, self), outputs, feeds))
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
