"""Observers of the engine's sessions: the runs of the graph that are made, and the sessions that are kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import onnxruntime
import pytest
from numpy.typing import NDArray

from seewhy.runtime.sessions import SessionCache

Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"
Run: TypeAlias = "Callable[[frozenset[str], Feeds], dict[str, NDArray[Any]]]"


def replace_runs(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Run, frozenset[str], Feeds], dict[str, NDArray[Any]]]
) -> None:
    """Call `run(real, outputs, feeds)` for every run of a graph; `real(outputs, feeds)` is the run that it replaces."""
    real = SessionCache.run
    monkeypatch.setattr(SessionCache, "run", lambda self, outputs, feeds: run(partial(real, self), outputs, feeds))


def record_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str], int]]:
    """Return a list to which every run of a graph adds its outputs, the values that it is fed, and its rows."""
    made: list[tuple[set[str], set[str], int]] = []

    def recorded(real: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, NDArray[Any]]:
        [rows] = {len(value) for value in feeds.values()}
        made.append((set(outputs), set(feeds), rows))
        return real(outputs, feeds)

    replace_runs(monkeypatch, recorded)
    return made


class StartedSessions:
    """The onnxruntime sessions that start after this is made."""

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
        """Return the outputs of the sessions that still exist, in the order in which they started."""
        gc.collect()
        sessions = [session for made in self._started if (session := made()) is not None]
        return [{output.name for output in session.get_outputs()} for session in sessions]
