"""Run items through stages on several threads, and yield the results in the order of the input.

No thread belongs to a stage. Each takes the pending call that is nearest to the end of the pipeline, so that no thread
waits while any stage has work, and few items lie between stages. A window limits how many items are in the pipeline: if
a stage is faster than the others, or the consumer is slower, the threads wait, and memory does not grow with the input.
"""

from __future__ import annotations

import heapq
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from seewhy.errors import ProviderError

# Waiting threads wake up this often (in seconds) to notice that the program has ended without closing its iterator.
_WAKE_UP_SECONDS = 1.0
_NO_END = sys.maxsize


@dataclass(frozen=True)
class Stage:
    """A function that the pipeline applies to every item."""

    function: Callable[[list[Any]], Iterable[Any]]
    """Takes consecutive items and returns or yields one result for each. Several threads call it at the same time.

    If it raises an exception after it has yielded some results, these count.
    """
    batch_size: int = 1
    """Number of items in one call. The last call may have fewer."""
    max_concurrent_calls: int | None = None
    """Maximum number of calls at the same time; None allows one for each thread."""


@dataclass(frozen=True)
class _Call:
    stage: int
    first: int
    """Number of the first item. Items are numbered from 0 in the order of the source."""
    items: list[Any]


def run_pipeline(source: Iterable[Any], stages: Sequence[Stage], threads: int, window: int) -> Iterator[Any]:
    """Run each item of `source` through all stages, and yield the results of the last stage in order.

    One thread at a time reads the source, at most `window` items ahead of the consumer. The work starts when the
    consumer requests the first result. An exception from the source or from a stage is raised here after the results of
    all items before it, and later items are dropped. If the iterator is closed, or an exception reaches it, the threads
    finish their current calls and end.

    Args:
        source: The items.
        stages: The stages, in order.
        threads: Number of threads, at least 1.
        window: Maximum number of items in the pipeline, at least 1 and one item less than each stage's batch size.

    Returns:
        The results of the last stage, as an iterator.

    Raises:
        ValueError: If `threads` or `window` is too small. Stages would wait for items that are never read.
        ProviderError: If the system cannot start so many threads.
    """
    # The oldest item waits for the others of its last batch, and each of these for the others of its batch before that.
    needed = 1 + sum(stage.batch_size - 1 for stage in stages)
    if threads < 1 or window < needed:
        raise ValueError(
            f"a pipeline with these batch sizes needs at least 1 thread and a window of {needed} items, not {threads} "
            f"threads and a window of {window} items"
        )
    return _results(_Pipeline(source, stages, window), threads)


def _results(pipeline: _Pipeline, threads: int) -> Iterator[Any]:
    workers = [threading.Thread(target=pipeline.work, name=f"seewhy-{i}") for i in range(threads)]
    try:
        for started, worker in enumerate(workers):
            try:
                worker.start()
            except RuntimeError:
                message = f"the system allows {started} of {threads} threads; choose fewer with --threads or `threads`"
                raise ProviderError(message) from None
        number = 0
        while results := pipeline.take(number):
            yield from results
            number += len(results)
    finally:
        pipeline.stop()
        for worker in workers:
            with suppress(RuntimeError):  # the thread did not start, because of an interrupt or too many threads
                worker.join()


class _Pipeline:
    """State that all threads share: items, pending calls and results. One lock guards all of it.

    A thread that finishes something takes the next call itself. Others are woken only for further work, one for each
    call: waking a thread that finds nothing to do costs as much as many calls of a small stage.
    """

    def __init__(self, source: Iterable[Any], stages: Sequence[Stage], window: int) -> None:
        self._source = iter(source)
        self._stages = stages
        self._window = window
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        """Notified when there may be work for a waiting thread."""
        self._has_result = threading.Condition(self._lock)
        """Notified when the consumer's next result has arrived, or will never arrive."""
        self._wanted = 0
        """Number of the item whose result the consumer needs next."""
        self._consumer = threading.current_thread()
        self._stopped = False
        self._is_reading = False
        """True while a thread is reading an item from the source."""
        self._read = 0
        """Number of items that were read from the source."""
        self._consumed = 0
        """Number of items whose results the consumer has finished with."""
        self._end = _NO_END
        """Number of the first item without a result, because the source ends or something fails there."""
        self._failure: BaseException | None = None
        self._arrived: list[dict[int, Any]] = [{} for _ in range(len(stages) + 1)]
        """Items before each stage whose batch is not complete yet, by number. The last dict holds the results."""
        self._pending: list[list[tuple[int, list[Any]]]] = [[] for _ in stages]
        """Calls of each stage that can start, as a heap ordered by the number of the first item."""
        self._active_calls = [0] * len(stages)
        """Number of calls of each stage that are in progress."""

    # Methods for the consumer's thread.

    def take(self, number: int) -> list[Any]:
        """Wait for the result of item `number`, and return it and those behind it that have arrived.

        The consumer has finished with all results before it, so that reading can continue. An empty list means that
        there is no such item. If it failed, its error is raised.
        """
        with self._lock:
            if self._read - self._consumed >= self._window:
                self._has_work.notify()
            self._consumed = self._wanted = number
            self._consumer = threading.current_thread()
            arrived = self._arrived[-1]
            self._has_result.wait_for(lambda: number in arrived or number >= self._end or self._stopped)
            if self._stopped:
                raise RuntimeError("the pipeline has stopped, because the thread that consumed its results has ended")
            if number >= self._end and self._failure is not None:
                raise self._failure
            return [arrived.pop(each) for each in takewhile(arrived.__contains__, range(number, self._end))]

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._notify_all()

    def _notify_all(self) -> None:
        self._has_work.notify_all()
        self._has_result.notify_all()

    # Methods for the worker threads.

    def work(self) -> None:
        """Read items and call stages until nothing is left to do."""
        try:
            while (call := self._wait_for_call()) is not None:
                if call is _READ:
                    self._read_items()
                else:
                    self._run(call)
        except BaseException as error:  # noqa: BLE001  a MemoryError, for example: without this the consumer would hang
            with self._lock:
                self._end_at(0, error)

    def _wait_for_call(self) -> _Call | None:
        """Wait for the next call; return `_READ` to read an item instead, or None if the thread should end."""
        with self._lock:
            while True:
                if self._stopped or self._is_abandoned():
                    self._stopped = True
                    self._notify_all()
                    return None
                call = self._next_call()
                if call is not None:
                    if self._next_stage() is not None:
                        self._has_work.notify()
                    return call
                if self._is_finished():
                    self._notify_all()
                    return None
                self._has_work.wait(_WAKE_UP_SECONDS)

    def _is_abandoned(self) -> bool:
        """Return whether the program has ended without closing the iterator. Python then waits for these threads."""
        return not threading.main_thread().is_alive() and not self._consumer.is_alive()

    def _next_stage(self) -> int | None:
        """Return the last stage that has a call to start; -1 if items can be read instead, or None."""
        for index in reversed(range(len(self._stages))):
            limit, pending = self._stages[index].max_concurrent_calls, self._pending[index]
            if pending and pending[0][0] < self._end and (limit is None or self._active_calls[index] < limit):
                return index
        can_read = not self._is_reading and self._read < self._end and self._read - self._consumed < self._window
        return -1 if can_read else None

    def _next_call(self) -> _Call | None:
        index = self._next_stage()
        if index is None:
            return None
        if index == -1:
            self._is_reading = True
            return _READ
        self._active_calls[index] += 1
        return _Call(index, *heapq.heappop(self._pending[index]))

    def _is_finished(self) -> bool:
        """Return whether no thread can get any more work."""
        has_pending = any(pending and pending[0][0] < self._end for pending in self._pending)
        return self._read >= self._end and not self._is_reading and not has_pending and not any(self._active_calls)

    def _read_items(self) -> None:
        """Read the items that the first stage takes in one call, or as many as the window has room for."""
        size = self._stages[0].batch_size
        count = min(size - self._read % size, self._window - self._read + self._consumed)
        items, failure = _collected(islice, self._source, count)
        with self._lock:
            self._is_reading = False
            self._deliver(0, self._read, items)
            self._read += len(items)
            if len(items) < count:
                self._end_at(self._read, failure)

    def _run(self, call: _Call) -> None:
        results, failure = _collected(self._stages[call.stage].function, call.items)
        if failure is None and len(results) != len(call.items):
            failure = ValueError(f"a stage returned {len(results)} results for {len(call.items)} items")
            results = []
        with self._lock:
            self._active_calls[call.stage] -= 1
            self._deliver(call.stage + 1, call.first, results)
            if failure is not None:
                self._end_at(call.first + len(results), failure)

    def _deliver(self, stage: int, first: int, items: Sequence[Any]) -> None:
        """Put consecutive items before a stage, or among the results if `stage` is the number of stages."""
        arrived = self._arrived[stage]
        arrived.update(enumerate(items, first))
        if stage == len(self._stages):
            if self._wanted in arrived:
                self._has_result.notify()
            return
        size = self._stages[stage].batch_size
        for number in range(first - first % size, first + len(items), size):
            self._form_call(stage, number)

    def _form_call(self, stage: int, number: int) -> None:
        """Make the call that item `number` belongs to pending if all its items have arrived."""
        arrived, size = self._arrived[stage], self._stages[stage].batch_size
        first = number - number % size
        batch = range(first, min(first + size, self._end))
        if batch and all(each in arrived for each in batch):
            heapq.heappush(self._pending[stage], (first, [arrived.pop(each) for each in batch]))

    def _end_at(self, number: int, failure: BaseException | None) -> None:
        """Drop all items from `number` on. The failure of the lowest number is kept, whichever happens first."""
        if number < self._end or (number == self._end and self._failure is None):
            self._end, self._failure = number, failure
            for stage in range(len(self._stages)):
                if number:
                    self._form_call(stage, number - 1)  # this batch gets no more items
        self._notify_all()


_READ = _Call(-1, -1, [])


def _collected(function: Callable[..., Iterable[Any]], *arguments: Any) -> tuple[list[Any], BaseException | None]:
    """Return what a function yields, and the exception by which it ended, if any."""
    found: list[Any] = []
    try:
        for item in function(*arguments):
            found.append(item)  # `list` would lose the items before an exception
    except BaseException as error:  # noqa: BLE001  raised again in the consumer's thread
        return found, error
    return found, None
