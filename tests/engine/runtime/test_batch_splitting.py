"""Tests of `seewhy.runtime.batch_splitting`: each image of a batch runs once, and the results do not change."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seewhy import Explainer
from seewhy.runtime import batch_splitting
from support.session_calls import StartedSessions
from support.tiny_model_files import pixels

MANY = 10**9
"""Size of matrices, in bytes, for which sub-batches must be large."""


def split(rows: int, threads: int, matrices: int, small: bool) -> list[slice]:
    return batch_splitting.split_batch(rows, threads, batch_splitting.largest_sub_batch(rows, threads, matrices, small))


def run_all(run: Callable[[slice], Any], parts: list[slice], threads: int) -> list[Any]:
    """Return the results in the order in which they are handed over."""
    found: list[Any] = []
    batch_splitting.run_sub_batches(run, parts, threads, lambda part, result: found.append((part, result)))
    assert [part for part, _ in found] == parts
    return [result for _, result in found]


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, MANY), st.booleans())
def test_sub_batches_cover_the_batch(rows: int, threads: int, matrices: int, small: bool) -> None:
    parts = split(rows, threads, matrices, small)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in parts]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("rows", "threads", "matrices", "sizes"),
    [
        (8, 2, 10_000_000, [1] * 8),
        (8, 2, 30_000_000, [2, 2, 2, 2]),
        (8, 2, 80_000_000, [4, 4]),
        (32, 2, 150_000_000, [8, 8, 8, 8]),
        (8, 1, 30_000_000, [2, 2, 2, 2]),
        (7, 2, 30_000_000, [1, 2, 2, 2]),
        (1, 1, 0, [1]),
    ],
)
def test_sizes_of_sub_batches(rows: int, threads: int, matrices: int, sizes: list[int]) -> None:
    assert [part.stop - part.start for part in split(rows, threads, matrices, True)] == sizes


@pytest.mark.parametrize(("threads", "sizes"), [(1, [8]), (2, [4, 4]), (3, [2, 3, 3]), (9, [1] * 8)])
def test_a_forward_pass_has_one_sub_batch_per_thread(threads: int, sizes: list[int]) -> None:
    assert [part.stop - part.start for part in split(8, threads, 0, False)] == sizes


@pytest.mark.parametrize(
    ("rows", "threads", "matrices", "worth"),
    [
        (1, 2, 0, False),
        (2, 2, 0, True),
        (3, 2, 0, False),
        (8, 2, 0, True),
        (8, 16, 0, False),
        (31, 16, 0, True),
        (8, 2, 80_000_000, True),
        (8, 2, 90_000_000, False),
        (16, 2, 90_000_000, True),
    ],
)
def test_splitting_is_worth_it_if_no_core_idles(rows: int, threads: int, matrices: int, worth: bool) -> None:
    assert batch_splitting.is_worth_splitting(rows, threads, matrices) is worth


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order(threads: int) -> None:
    parts = batch_splitting.split_batch(23, threads, 1)
    assert run_all(lambda part: part, parts, threads) == parts


def test_sub_batches_run_in_parallel() -> None:
    meeting = threading.Barrier(3, timeout=30)
    assert run_all(lambda part: meeting.wait() >= 0, batch_splitting.split_batch(3, 3, 1), 3) == [True] * 3


def test_the_calling_thread_runs_sub_batches_too() -> None:
    meeting = threading.Barrier(3, timeout=30)
    used = run_all(lambda _: (meeting.wait(), threading.current_thread())[1], batch_splitting.split_batch(3, 3, 1), 3)
    assert threading.current_thread() in used and len(set(used)) == 3


def test_a_system_without_further_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    parts = batch_splitting.split_batch(9, 3, 1)
    assert run_all(lambda part: part, parts, 3) == parts


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_few_results_exist_at_a_time(threads: int) -> None:
    """Count the sub-batches that have started and are not handed over, while the first one takes long."""
    parts, started, taken = batch_splitting.split_batch(100, threads, 1), [], []
    most = 0

    def run(part: slice) -> None:
        nonlocal most
        started.append(part)
        most = max(most, len(started) - len(taken))
        if part.start == 0:
            time.sleep(0.1)

    batch_splitting.run_sub_batches(run, parts, threads, lambda part, _: taken.append(part))
    assert taken == parts
    assert most <= 2 * threads + 1


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_failure_is_raised_and_all_threads_end(threads: int) -> None:
    started = []

    def fail(part: slice) -> None:
        started.append(part)
        if part.start >= 4:
            raise ValueError(part.start)

    before = threading.active_count()
    with pytest.raises(ValueError, match="4"):
        run_all(fail, batch_splitting.split_batch(100, threads, 1), threads)
    assert threading.active_count() == before
    assert len(started) <= 5 + 2 * threads


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_of_the_taker_ends_the_run(threads: int) -> None:
    started = []

    def take(part: slice, result: None) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        batch_splitting.run_sub_batches(started.append, batch_splitting.split_batch(100, threads, 1), threads, take)
    assert threading.active_count() == before
    assert len(started) <= 2 * threads + 1


def test_an_interrupt_is_raised_even_if_an_earlier_sub_batch_fails() -> None:
    caller, interrupted = threading.current_thread(), threading.Event()

    def run(part: slice) -> None:
        if threading.current_thread() is caller:
            interrupted.set()
            raise KeyboardInterrupt
        interrupted.wait(30)
        raise ValueError(part.start)

    with pytest.raises(KeyboardInterrupt):
        run_all(run, batch_splitting.split_batch(9, 3, 1), 3)


def test_failures_keep_no_arrays_alive() -> None:
    meeting, arrays = threading.Barrier(3, timeout=30), []

    def run(_: slice) -> None:
        array = np.zeros(3)
        arrays.append(weakref.ref(array))
        meeting.wait()
        raise ValueError

    gc.disable()
    try:
        with suppress(ValueError):
            run_all(run, batch_splitting.split_batch(3, 3, 1), 3)
        assert [array() for array in arrays] == [None] * 3
    finally:
        gc.enable()


def test_all_threads_run_in_the_context_of_the_caller() -> None:
    """NumPy, for example, keeps there what `numpy.errstate` sets."""
    variable = ContextVar("variable", default="default")
    meeting = threading.Barrier(3, timeout=30)

    def run(_: slice) -> str:
        meeting.wait()
        return variable.get()

    token = variable.set("caller's")
    try:
        assert run_all(run, batch_splitting.split_batch(3, 3, 1), 3) == ["caller's"] * 3
    finally:
        variable.reset(token)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_results_have_the_same_bits(model_path: Path, threads: int, count: int) -> None:
    whole, cut = Explainer(model_path, threads=1), Explainer(model_path, threads=threads)
    images = pixels(count)
    methods = [name for name in ("gradcam", "backprop", "guided-backprop", "cam") if name in whole.methods]
    found = cut.explain(images, methods)
    for row in range(count):
        alone = whole.explain(images[row : row + 1], methods)
        for method in methods:
            np.testing.assert_array_equal(found[method].logits[row], alone[method].logits[0])
            np.testing.assert_array_equal(found[method].attributions[row], alone[method].attributions[0])


def test_an_existing_session_runs_uneven_batches(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(model_path, threads=2)
    started = StartedSessions(monkeypatch)
    images = pixels(4)
    for rows in (4, 3, 2):
        explainer.explain(images[:rows])
    assert started.count == 1
    explainer.explain(images[:1])  # one image takes all threads
    assert started.count == 2
