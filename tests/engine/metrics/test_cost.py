"""Tests of `cost`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import Scope
from seewhy.metrics.cost import COST
from support.evaluated import evaluated, measure
from support.session_calls import StartedSessions
from support.tiny_model_files import pixels


@pytest.mark.parametrize(
    ("method", "options", "passes", "size"),
    [
        ("gradcam", {}, 1, 6 * 8 * 4),
        ("backprop", {}, 1, 3 * 12 * 16 * 4),
        ("guided-gradcam", {}, 1, 3 * 12 * 16 * 4),
        ("smoothgrad", {"samples": 9}, 9, 3 * 12 * 16 * 4),
        ("scorecam", {}, 5, 6 * 8 * 4),  # one for each channel
        ("ablationcam", {}, 5, 6 * 8 * 4),
    ],
)
def test_passes_and_bytes(explainer: Explainer, method: str, options: dict[str, Any], passes: int, size: int) -> None:
    counts: list[int] = []
    raw = explainer.explain(
        pixels(1), method, options={method: options}, progress=lambda done, total: counts.append(total)
    )
    request = explainer.resolve_methods(method, {method: options})[0]
    one = evaluated(explainer, pixels(1)[0], [method])[method]
    object.__setattr__(one.method, "request", request)
    details = measure(COST, one).details
    assert details == {"passes": passes, "bytes": size}
    assert passes == (counts[-1] if counts else 1)
    assert size == (raw.attributions if raw.maps is None else raw.maps).nbytes


def test_the_creation_of_a_session_is_not_counted(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(model_path, threads=1)
    one = evaluated(explainer, pixels(1)[0], ["gradcam", "backprop"])["backprop"]
    started = StartedSessions(monkeypatch)
    runs: list[float] = []
    explain = Explainer.explain

    def slow(self: Explainer, *args: Any, **more: Any) -> Any:
        created = self.sessions_created
        found = explain(self, *args, **more)
        runs.append(self.sessions_created - created)
        if runs[-1]:
            end = time.thread_time() + 0.2
            while time.thread_time() < end:
                pass
        return found

    monkeypatch.setattr(Explainer, "explain", slow)
    assert measure(COST, one).value < 200 and runs == [1, 0] and started.count == 1
    assert measure(COST, one).value < 200 and runs == [1, 0, 0] and started.count == 1


def test_time_is_that_of_this_thread(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    one = evaluated(explainer, pixels(1)[0], ["backprop"])["backprop"]
    measure(COST, one)
    explain = Explainer.explain

    def waiting(self: Explainer, *args: Any, **more: Any) -> Any:
        time.sleep(0.3)  # as if other processes used the core
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            np.sqrt(2.0)
        return explain(self, *args, **more)

    monkeypatch.setattr(Explainer, "explain", waiting)
    assert 50 <= measure(COST, one).value < 300


def test_references_and_files_have_no_cost(explainer: Explainer) -> None:
    found = evaluated(explainer, pixels(1)[0], ["backprop"], {"mine": np.ones((12, 16), np.float32)})
    scope = Scope(explainer.metadata)
    reasons = {name: COST.unsuitable(one.method, scope, {}) for name, one in found.items()}
    assert reasons.pop("backprop") is None
    assert set(reasons) == {"mine", "random", "centre"} and all("not computed" in str(one) for one in reasons.values())
