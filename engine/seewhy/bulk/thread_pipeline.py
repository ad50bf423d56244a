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
from typing import Any

from seewhy.errors import ProviderError

# Waiting threads wake up this often (in seconds) to notice that the program has ended without closing its iterator.
_WAKE_UP_SECONDS = 1.0
_NO_END = sys.maxsize


@dataclass(frozen=True)
class Stage:
    """A function that the pipeline applies to every item."""

    function: Callable[[list[Any]], Sequence[Any]]
    """Takes consecutive items and returns one result for each. Several threads call it at the same time."""
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
        window: Maximum number of items in the pipeline, at least the batch size of every stage.

    Returns:
        The results of the last stage, as an iterator.

    Raises:
        ValueError: If `threads` or `window` is too small, or two stages have different batch sizes above 1. Such stages
            would wait for each other.
        ProviderError: If the system cannot start so many threads.
    """
    sizes = {stage.batch_size for stage in stages} - {1}
    if len(sizes) > 1:
        raise ValueError(f"stages with a batch size above 1 must all have the same one, not {sorted(sizes)}")
    if threads < 1 or window < max(sizes, default=1):
        raise ValueError(
            f"a pipeline needs at least 1 thread and a window of at least one batch ({max(sizes, default=1)} items), "
            f"not {threads} threads and a window of {window} items"
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
        while pipeline.wait_for(number):
            yield pipeline.take(number)
            number += 1
            pipeline.set_consumed(number)
    finally:
        pipeline.stop()
        for worker in workers:
            with suppress(RuntimeError):  # the thread did not start, because of an interrupt or too many threads
                worker.join()


class _Pipeline:
    """State that all threads share: items, pending calls and results. One lock guards all of it."""

    def __init__(self, source: Iterable[Any], stages: Sequence[Stage], window: int) -> None:
        self._source = iter(source)
        self._stages = stages
        self._window = window
        self._changed = threading.Condition()
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

    def wait_for(self, number: int) -> bool:
        """Wait for the result of an item. Return False if there is no such item; raise the error if it failed."""
        with self._changed:
            self._consumer = threading.current_thread()
            self._changed.wait_for(lambda: number in self._arrived[-1] or number >= self._end or self._stopped)
            if self._stopped:
                raise RuntimeError("the pipeline has stopped, because the thread that consumed its results has ended")
            if number < self._end:
                return True
            if self._failure is not None:
                raise self._failure
            return False

    def take(self, number: int) -> Any:
        with self._changed:
            return self._arrived[-1].pop(number)

    def set_consumed(self, count: int) -> None:
        """Record that the consumer has finished with the first `count` results, so that reading can continue."""
        with self._changed:
            self._consumed = count
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # Methods for the worker threads.

    def work(self) -> None:
        """Read items and call stages until nothing is left to do."""
        try:
            while (call := self._wait_for_call()) is not None:
                if call is _READ:
                    self._read_item()
                else:
                    self._run(call)
        except BaseException as error:  # noqa: BLE001  a MemoryError, for example: without this the consumer would hang
            with self._changed:
                self._end_at(0, error)

    def _wait_for_call(self) -> _Call | None:
        """Wait for the next call; return `_READ` to read an item instead, or None if the thread should end."""
        with self._changed:
            while True:
                if self._stopped or self._is_abandoned():
                    self._stopped = True
                    return None
                call = self._next_call()
                if call is not None:
                    return call
                if self._is_finished():
                    return None
                self._changed.wait(_WAKE_UP_SECONDS)

    def _is_abandoned(self) -> bool:
        """Return whether the program has ended without closing the iterator. Python then waits for these threads."""
        return not threading.main_thread().is_alive() and not self._consumer.is_alive()

    def _next_call(self) -> _Call | None:
        for index in reversed(range(len(self._stages))):
            limit, pending = self._stages[index].max_concurrent_calls, self._pending[index]
            if pending and pending[0][0] < self._end and (limit is None or self._active_calls[index] < limit):
                self._active_calls[index] += 1
                return _Call(index, *heapq.heappop(pending))
        if not self._is_reading and self._read < self._end and self._read - self._consumed < self._window:
            self._is_reading = True
            return _READ
        return None

    def _is_finished(self) -> bool:
        """Return whether no thread can get any more work."""
        has_pending = any(pending and pending[0][0] < self._end for pending in self._pending)
        return self._read >= self._end and not self._is_reading and not has_pending and not any(self._active_calls)

    def _read_item(self) -> None:
        try:
            item = next(self._source)
        except StopIteration:
            self._end_source()
        except BaseException as error:  # noqa: BLE001  raised again in the consumer's thread
            self._end_source(error)
        else:
            with self._changed:
                self._is_reading = False
                self._deliver(0, self._read, [item])
                self._read += 1

    def _end_source(self, failure: BaseException | None = None) -> None:
        with self._changed:
            self._is_reading = False
            self._end_at(self._read, failure)

    def _run(self, call: _Call) -> None:
        stage = self._stages[call.stage]
        try:
            results = stage.function(call.items)
            if len(results) != len(call.items):
                raise ValueError(f"a stage returned {len(results)} results for {len(call.items)} items")
        except BaseException as error:  # noqa: BLE001  raised again in the consumer's thread
            with self._changed:
                self._active_calls[call.stage] -= 1
                self._end_at(call.first, error)
        else:
            with self._changed:
                self._active_calls[call.stage] -= 1
                self._deliver(call.stage + 1, call.first, results)

    def _deliver(self, stage: int, first: int, items: Sequence[Any]) -> None:
        """Put consecutive items before a stage, or among the results if `stage` is the number of stages."""
        arrived = self._arrived[stage]
        for number, item in enumerate(items, first):
            arrived[number] = item
            self._form_call(stage, number)
        self._changed.notify_all()

    def _form_call(self, stage: int, number: int) -> None:
        """Make the call that item `number` belongs to pending if all its items have arrived."""
        if stage == len(self._stages):
            return
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
        self._changed.notify_all()


_READ = _Call(-1, -1, [])
