"""Stages that overlap: items go from stage to stage on a few threads, and come out in the order of what went in.

Threads belong to no stage. Each takes the work that is nearest to the end, so that none waits while any stage has
something to do, and little lies between stages. A window bounds how many items are on the way: a stage that is faster
than the others, or a consumer that is slower, makes the threads wait, and memory does not grow with the input.
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

# Threads that wait look up this often (seconds), so that they end with a program that never closed its iterator.
_LOOK_UP = 1.0
_NO_END = sys.maxsize


@dataclass(frozen=True)
class Stage:
    """One step of the work."""

    work: Callable[[list[Any]], Sequence[Any]]
    """Takes items that follow each other, returns a result for each. It is called by several threads at once."""
    size: int = 1
    """Items in one call; the last call takes what is left."""
    at_once: int | None = None
    """Most calls at the same time; None: as many as there are threads."""


@dataclass(frozen=True)
class _Task:
    stage: int
    first: int
    """Number of the first item; they are counted from 0 at the source."""
    items: list[Any]


def run(source: Iterable[Any], stages: Sequence[Stage], threads: int, window: int) -> Iterator[Any]:
    """Yield what the last stage makes of each item of `source`, in order.

    The source is read by one thread at a time, at most `window` items ahead of the one that was asked for last. What
    an item, a stage or the source raises is raised here, after the results of all items before it; later items are
    given up. Closing the iterator, or an exception that reaches it, ends the threads as soon as they have finished what
    they were doing. The work begins when the first item is asked for.

    Raises:
        ValueError: there are no threads, the window is smaller than a call of a stage, or stages of several items do
            not all take the same number of them (they would wait for each other).
    """
    sizes = {stage.size for stage in stages} - {1}
    if len(sizes) > 1:
        raise ValueError(f"stages take {sorted(sizes)} items; those that take several must take the same number")
    if threads < 1 or window < max(sizes, default=1):
        raise ValueError(f"cannot work with {threads} threads and a window of {window} items for {sorted(sizes)}")
    return _results(_Line(source, stages, window), threads)


def _results(line: _Line, threads: int) -> Iterator[Any]:
    helpers = [threading.Thread(target=line.serve, name=f"seewhy-{i}") for i in range(threads)]
    try:
        for started, helper in enumerate(helpers):
            try:
                helper.start()
            except RuntimeError:
                message = f"the system gives {started} of {threads} threads; choose fewer, with --threads or `threads`"
                raise ProviderError(message) from None
        number = 0
        while line.wait_for(number):
            yield line.take(number)
            number += 1
            line.forget(number)
    finally:
        line.stop()
        for helper in helpers:
            with suppress(RuntimeError):  # it was not started: there was an interrupt, or there are too many threads
                helper.join()


class _Line:
    """What is on the way, and who is at work on it; all of it behind one lock."""

    def __init__(self, source: Iterable[Any], stages: Sequence[Stage], window: int) -> None:
        self._source = iter(source)
        self._stages = stages
        self._window = window
        self._changed = threading.Condition()
        self._consumer = threading.current_thread()
        self._stopped = False
        self._reading = False
        self._read = 0
        """Items taken from the source."""
        self._done = 0
        """Items that the consumer is finished with."""
        self._end = _NO_END
        """The first number that will not come: the source has ended there, or something failed."""
        self._failure: BaseException | None = None
        self._arrived: list[dict[int, Any]] = [{} for _ in range(len(stages) + 1)]
        """Before each stage: items whose call is not complete yet, by number. Behind the last: results."""
        self._ready: list[list[tuple[int, list[Any]]]] = [[] for _ in stages]
        """Before each stage: a heap of calls that can be made."""
        self._at_work = [0] * len(stages)

    # The consumer's side.

    def wait_for(self, number: int) -> bool:
        """Wait for a result; False where none will come.

        Raises:
            BaseException: what went wrong at this item.
        """
        with self._changed:
            self._consumer = threading.current_thread()
            self._changed.wait_for(lambda: number in self._arrived[-1] or number >= self._end or self._stopped)
            if self._stopped:
                raise RuntimeError("the threads have ended, as the one that took their results had")
            if number < self._end:
                return True
            if self._failure is not None:
                raise self._failure
            return False

    def take(self, number: int) -> Any:
        with self._changed:
            return self._arrived[-1].pop(number)

    def forget(self, done: int) -> None:
        """The consumer has come back: `done` items lie behind it."""
        with self._changed:
            self._done = done
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # The threads' side.

    def serve(self) -> None:
        """Do what there is to do until nothing is left."""
        try:
            while (task := self._next()) is not None:
                if task is _READ:
                    self._read_one()
                else:
                    self._work(task)
        except BaseException as error:  # noqa: BLE001  lack of memory, say: better raised than waited for
            with self._changed:
                self._end_at(0, error)

    def _next(self) -> _Task | None:
        with self._changed:
            while True:
                if self._stopped or self._abandoned():
                    self._stopped = True
                    return None
                task = self._choose()
                if task is not None:
                    return task
                if self._nothing_left():
                    return None
                self._changed.wait(_LOOK_UP)

    def _abandoned(self) -> bool:
        """Whether the program has come to its end without closing the iterator; Python waits for these threads then."""
        return not threading.main_thread().is_alive() and not self._consumer.is_alive()

    def _choose(self) -> _Task | None:
        for index in reversed(range(len(self._stages))):
            most, ready = self._stages[index].at_once, self._ready[index]
            if ready and ready[0][0] < self._end and (most is None or self._at_work[index] < most):
                self._at_work[index] += 1
                return _Task(index, *heapq.heappop(ready))
        if not self._reading and self._read < self._end and self._read - self._done < self._window:
            self._reading = True
            return _READ
        return None

    def _nothing_left(self) -> bool:
        """Whether no thread can get anything to do any more."""
        on_the_way = any(ready and ready[0][0] < self._end for ready in self._ready)
        return self._read >= self._end and not self._reading and not on_the_way and not any(self._at_work)

    def _read_one(self) -> None:
        try:
            item = next(self._source)
        except StopIteration:
            self._ended()
        except BaseException as error:  # noqa: BLE001  raised again where the results are asked for
            self._ended(error)
        else:
            with self._changed:
                self._reading = False
                self._arrive(0, self._read, [item])
                self._read += 1

    def _ended(self, failure: BaseException | None = None) -> None:
        with self._changed:
            self._reading = False
            self._end_at(self._read, failure)

    def _work(self, task: _Task) -> None:
        stage = self._stages[task.stage]
        try:
            results = stage.work(task.items)
            if len(results) != len(task.items):
                raise ValueError(f"a stage returned {len(results)} results for {len(task.items)} items")
        except BaseException as error:  # noqa: BLE001  raised again where the results are asked for
            with self._changed:
                self._at_work[task.stage] -= 1
                self._end_at(task.first, error)
        else:
            with self._changed:
                self._at_work[task.stage] -= 1
                self._arrive(task.stage + 1, task.first, results)

    def _arrive(self, place: int, first: int, items: Sequence[Any]) -> None:
        arrived = self._arrived[place]
        for number, item in enumerate(items, first):
            arrived[number] = item
            self._form(place, number)
        self._changed.notify_all()

    def _form(self, place: int, number: int) -> None:
        """Make the call that `number` belongs to ready if all its items are there."""
        if place == len(self._stages):
            return
        arrived, size = self._arrived[place], self._stages[place].size
        first = number - number % size
        together = range(first, min(first + size, self._end))
        if together and all(each in arrived for each in together):
            heapq.heappush(self._ready[place], (first, [arrived.pop(each) for each in together]))

    def _end_at(self, number: int, failure: BaseException | None) -> None:
        """Nothing comes from `number` on. What fails first in the order of the items counts, not in time."""
        if number < self._end or (number == self._end and self._failure is None):
            self._end, self._failure = number, failure
            for place in range(len(self._stages)):
                if number:
                    self._form(place, number - 1)  # this call gets no more items
        self._changed.notify_all()


_READ = _Task(-1, -1, [])
