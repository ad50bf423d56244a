"""Tests of `seewhy.bulk.thread_pipeline`: order, limits, overlap, and the end of the threads after an error."""

from __future__ import annotations

import _thread
import itertools
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy import ProviderError
from seewhy.bulk import thread_pipeline
from seewhy.bulk.thread_pipeline import Stage, run_pipeline


def each(function: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [function(item) for item in items]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("seewhy-")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert workers() == []


class Broken(Exception):
    pass


plans = st.tuples(
    st.integers(0, 25),  # items
    st.integers(1, 7),  # batch size
    st.integers(1, 4),  # items in one call of the first and of the last stage
    st.integers(1, 4),  # threads
    st.integers(0, 9),  # items in the window beyond the smallest one
    st.integers(0, 2**32),  # seed of the delays
)


@given(plans, st.sampled_from([None, "source", 0, 1, 2]), st.integers(0, 30))
@settings(deadline=None, max_examples=150)
def test_results_equal_those_of_a_serial_run(plan: tuple[int, ...], breaks: str | int | None, at: int) -> None:
    """Results come in order, up to the first item that fails. Batches equal those of a serial run.

    What a call yields before it fails counts.
    """
    count, size, group, threads, room, seed = plan
    delays = random.Random(seed)
    lock = threading.Lock()
    batches = []

    def pause() -> None:
        with lock:
            delay = delays.choice([0, 0, 0.0002, 0.001])
        if delay:
            time.sleep(delay)

    def source() -> Iterator[int]:
        for i in range(count):
            if breaks == "source" and i == at:
                raise Broken(i)
            yield i

    def stage(number: int) -> Callable[[list[Any]], Iterator[Any]]:
        def work(items: list[Any]) -> Iterator[Any]:
            pause()
            for item in items:
                if breaks == number and at in ([one[0] for one in items] if number == 1 else item):
                    raise Broken(at)
                yield (*item, str(number))
            if number == 1:
                batches.append([item[0] for item in items])

        return work

    stages = [Stage(each(lambda i: (i,))), Stage(stage(0), group), Stage(stage(1), size), Stage(stage(2), group)]
    found: list[Any] = []
    broken = None
    try:
        found.extend(run_pipeline(source(), stages, threads, 2 * group + size - 2 + room))
    except Broken as error:
        broken = error.args[0]
    fails = breaks is not None and at < count
    end = count if not fails else at - at % size if breaks == 1 else at
    assert broken == (at if fails else None)
    assert found == [(i, "0", "1", "2") for i in range(end)]
    # Every batch equals one of a serial run, except for the batch that the failure cuts short.
    whole = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
    for batch in batches:
        assert batch in whole or (fails and batch == list(range(batch[0], at)))


def test_results_are_yielded_as_soon_as_they_are_ready() -> None:
    """The consumer gets the first results before the source has yielded the third item."""
    resume = threading.Event()

    def source() -> Iterator[int]:
        yield from (1, 2)
        assert resume.wait(30)
        yield 3

    results = run_pipeline(source(), [Stage(each(lambda x: x * 10))], threads=2, window=3)
    assert [next(results), next(results)] == [10, 20]
    resume.set()
    assert list(results) == [30]


@pytest.mark.parametrize(("threads", "window"), [(1, 1), (2, 4), (4, 5)])
def test_the_source_is_not_read_further_than_the_window(threads: int, window: int) -> None:
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        while read < 100:
            read += 1
            yield read

    results = run_pipeline(
        source(), [Stage(each(lambda x: x)), Stage(each(lambda x: x), min(4, window))], threads, window
    )
    assert read == 0  # nothing is read before the first result is requested
    for done in range(100):
        assert next(results) == done + 1
        time.sleep(0.001)  # a slow consumer
        assert done + 1 <= read <= done + window
    assert list(results) == []


def test_threads_fill_the_window_while_the_consumer_waits() -> None:
    full = threading.Event()

    def work(items: list[int]) -> list[int]:
        if items == [9]:
            full.set()
        return items

    results = run_pipeline(range(100), [Stage(work)], threads=2, window=10)
    assert next(results) == 0
    assert full.wait(30)
    results.close()


def test_stages_and_calls_of_one_stage_overlap() -> None:
    """One call of the first stage and two of the second wait for each other, which only concurrent calls can."""
    barrier = threading.Barrier(3, timeout=30)

    def first(items: list[int]) -> list[int]:
        if items == [2]:
            barrier.wait()
        return items

    def second(items: list[int]) -> list[int]:
        if items != [2]:
            barrier.wait()
        return items

    assert list(run_pipeline(range(3), [Stage(first), Stage(second)], threads=3, window=3)) == [0, 1, 2]


def test_a_slow_item_does_not_hold_up_those_behind_it() -> None:
    """The other items of the window are finished while the first one is processed; results still come in order."""
    others = threading.Semaphore(0)

    def work(items: list[int]) -> list[int]:
        if items == [0]:
            assert all(others.acquire(timeout=30) for _ in range(5))
        else:
            others.release()
        return items

    assert list(run_pipeline(range(6), [Stage(work)], threads=2, window=6)) == list(range(6))


@pytest.mark.parametrize("limit", [1, 2, None])
def test_the_number_of_concurrent_calls_is_limited(limit: int | None) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(items: list[int]) -> list[int]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return items

    assert list(run_pipeline(range(40), [Stage(work, 2, limit)], threads=4, window=16)) == list(range(40))
    assert most <= (limit or 4)
    assert limit == 1 or most > 1


def test_the_call_nearest_to_the_end_comes_first() -> None:
    """A single thread finishes each batch before it starts another, and reads no more items than a batch needs."""
    done = []

    def note(name: str) -> Callable[[list[int]], list[int]]:
        return lambda items: done.append((name, items)) or items  # type: ignore[func-returns-value]

    assert list(run_pipeline(range(4), [Stage(note("a")), Stage(note("b"), 2), Stage(note("c"))], 1, 10)) == [
        0,
        1,
        2,
        3,
    ]
    one = [("a", [0]), ("a", [1]), ("b", [0, 1]), ("c", [0]), ("c", [1])]
    assert done[:5] == one and len(done) == 10


def test_the_first_failure_in_the_order_of_the_items_counts() -> None:
    """The second item fails before the first one does."""
    failed = threading.Event()

    def work(items: list[int]) -> list[int]:
        if items == [1]:
            failed.set()
        elif items == [0]:
            assert failed.wait(30)
        raise Broken(items[0])

    with pytest.raises(Broken, match="^0$"):
        next(run_pipeline(range(9), [Stage(work)], threads=2, window=4))


def test_no_item_after_a_failure_is_started() -> None:
    begun = []

    def work(items: list[int]) -> list[int]:
        begun.append(items[0])
        if items == [3]:
            raise Broken
        return items

    with pytest.raises(Broken):
        list(run_pipeline(itertools.count(), [Stage(work)], threads=1, window=8))
    assert begun == [0, 1, 2, 3]


def test_a_wrong_number_of_results() -> None:
    with pytest.raises(ValueError, match="a stage returned 1 results for 2 items"):
        list(run_pipeline(range(4), [Stage(lambda items: items[:1], 2)], threads=2, window=4))


@pytest.mark.parametrize(("sizes", "threads", "window"), [((1,), 0, 1), ((4,), 1, 3), ((1,), 1, 0), ((2, 3), 1, 3)])
def test_arguments_that_would_block_forever_are_refused(sizes: tuple[int, ...], threads: int, window: int) -> None:
    with pytest.raises(ValueError, match="needs at least 1 thread and a window of"):
        run_pipeline(range(3), [Stage(lambda items: items, size) for size in sizes], threads, window)


def test_closing_ends_the_threads() -> None:
    finished = []

    def work(items: list[int]) -> list[int]:
        time.sleep(0.001)
        finished.append(items[0])
        return items

    results = run_pipeline(itertools.count(), [Stage(work)], threads=3, window=50)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(workers()) == 3
    results.close()
    assert workers() == []
    assert sorted(finished) == list(range(len(finished)))  # every call that had started was finished
    with pytest.raises(StopIteration):
        next(results)


def test_an_iterator_that_is_dropped_ends_the_threads() -> None:
    results = run_pipeline(itertools.count(), [Stage(lambda items: items)], threads=2, window=4)
    next(results)
    del results


def test_an_interrupt_ends_the_threads() -> None:
    """Ctrl-C reaches the main thread while it starts threads, or while it waits for a result."""
    finished = []

    def work(items: list[int]) -> list[int]:
        if items == [at]:
            _thread.interrupt_main()
        time.sleep(0.05)
        finished.append(items[0])
        return items

    for at in (0, 5):
        finished.clear()
        with pytest.raises(KeyboardInterrupt):
            for _ in run_pipeline(itertools.count(), [Stage(work)], threads=2, window=4):
                pass
        assert at in finished
        end = time.monotonic() + 30
        while workers():  # a thread that was just being started is not joined
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_system_that_gives_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(ProviderError, match="the system allows 2 of 5 threads; choose fewer with --threads or"):
        list(run_pipeline(range(3), [Stage(list)], threads=5, window=2))
    assert len(begun) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_every_exception_of_a_stage_arrives(error: type[BaseException]) -> None:
    def work(items: list[int]) -> list[int]:
        raise error

    with pytest.raises(error):
        list(run_pipeline(range(3), [Stage(work)], threads=2, window=2))


def test_a_program_that_never_closes_its_iterator_ends() -> None:
    program = """
import itertools, sys
from seewhy.bulk.thread_pipeline import Stage, run_pipeline
results = run_pipeline(itertools.count(), [Stage(lambda items: items)], threads=2, window=4)
print(next(results))
sys.last_results = results
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_another_thread_may_continue_the_iteration() -> None:
    """The thread that took the first result has ended; the workers wait for another consumer."""
    results = run_pipeline(range(5), [Stage(lambda items: items)], threads=2, window=2)
    first = threading.Thread(target=lambda: found.append(next(results)))
    found: list[int] = []
    first.start()
    first.join()
    time.sleep(1.2)  # longer than the interval at which the workers wake up
    assert [*found, *results] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(40))
def test_no_thread_waits_while_there_is_work(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the regular wake-up of waiting threads, a call that wakes nobody would hang."""
    monkeypatch.setattr(thread_pipeline, "_WAKE_UP_SECONDS", 1000.0)
    random = Random(seed)
    count, batch, threads = random.randint(0, 60), random.choice([1, 3, 8]), random.randint(1, 6)

    def step(items: list[int]) -> list[int]:
        if random.random() < 0.3:
            time.sleep(random.random() * 0.002)
        return [item + 1 for item in items]

    group = random.choice([1, 2, 5])
    stages = [Stage(step, group), Stage(step, batch, random.choice([None, 1, 2])), Stage(step, group)]
    found: list[int] = []

    def consume() -> None:
        for item in run_pipeline(range(count), stages, threads, 2 * group - 2 + batch * random.randint(1, 4)):
            found.append(item)
            if random.random() < 0.2:
                time.sleep(0.001)

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    consumer.join(60)
    assert not consumer.is_alive() and found == [item + 3 for item in range(count)]
