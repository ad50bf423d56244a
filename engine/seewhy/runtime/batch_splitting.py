"""Split a batch into sub-batches that run on one core each, instead of running every layer on all cores.

Cores then wait for each other once per batch instead of once per layer. Operators that onnxruntime runs on one thread
(transposed convolutions, for example) use all cores too. The maps of a small sub-batch stay in the cache between the
forward pass and the backward pass that reads them again. The results have the same bits.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

_Result = TypeVar("_Result")

# Largest size of a network's matrices for each image of a sub-batch, in bytes. A convolution uses each weight that it
# reads at every position. A linear layer with few images mostly reads weights, so networks with large matrices
# (AlexNet, VGG) need large sub-batches, or none.
_MATRIX_BYTES_PER_IMAGE = 20_000_000

CACHED_WEIGHT_BYTES = 24_000_000
"""Largest total size of a network's weights, in bytes, that stays in the cache beside the maps.

Reading such weights again for each image is cheap.
"""

# Sub-batches of each thread that run, wait to run, or wait for an earlier one to be handed over. With two, the next one
# is ready for a thread that is ahead of the others.
_WAITING_PER_THREAD = 2

# Smallest share of the cores' time that must be used for splitting to be faster.
_MIN_UTILIZATION = 0.85


def is_worth_splitting(images: int, threads: int, matrix_bytes: int) -> bool:
    """Decide whether to split a batch between threads.

    Args:
        images: Number of images in the batch.
        threads: Number of threads.
        matrix_bytes: Size of the network's matrices, in bytes.

    Returns:
        True if splitting keeps the threads busy, and not mostly with reading matrices.
    """
    per_thread = -(-images // threads)
    busy = images >= _MIN_UTILIZATION * threads * per_thread
    return images > 1 and busy and matrix_bytes <= per_thread * _MATRIX_BYTES_PER_IMAGE


def largest_sub_batch(images: int, threads: int, matrix_bytes: int, small: bool) -> int:
    """Choose the largest number of images in one sub-batch.

    Small sub-batches are faster if a backward pass to the image reads again what the forward pass has stored, or if all
    weights stay in the cache. Otherwise, reading the weights again costs more than a forward pass gains.

    Args:
        images: Number of images in the batch.
        threads: Number of threads.
        matrix_bytes: Size of the network's matrices, in bytes.
        small: True for sub-batches as small as `matrix_bytes` allows, False for one sub-batch per thread.

    Returns:
        The number, at least 1.
    """
    return max(1, -(-matrix_bytes // _MATRIX_BYTES_PER_IMAGE)) if small else max(1, -(-images // threads))


def split_batch(images: int, threads: int, largest: int) -> list[slice]:
    """Split images into sub-batches of nearly equal size, the same number for each thread.

    Args:
        images: Number of images.
        threads: Number of threads.
        largest: Largest number of images in one sub-batch.

    Returns:
        The images of each sub-batch.
    """
    rounds = -(-images // (largest * threads))
    count = min(images, rounds * threads)
    edges = [images * i // count for i in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def run_sub_batches(
    run: Callable[[slice], _Result],
    sub_batches: Sequence[slice],
    threads: int,
    take: Callable[[slice, _Result], object],
) -> None:
    """Run sub-batches in parallel, and hand over their results in order.

    Only a few results exist at a time, so memory does not grow with the number of sub-batches.

    Args:
        run: Function that runs one sub-batch, on any of the threads.
        sub_batches: Images of each sub-batch.
        threads: Maximum number of threads, of which the calling thread is one. The others end with the call.
        take: Function that receives each sub-batch and its result, on the calling thread.

    Raises:
        Exception: If a sub-batch or `take` fails: the first failure in the order of the sub-batches, once all threads
            are done. Sub-batches that have not started by then are skipped.
    """
    if threads == 1:
        for sub_batch in sub_batches:
            take(sub_batch, run(sub_batch))
        return
    _ParallelRun(run, sub_batches, threads).hand_over(take)


class _ParallelRun(Generic[_Result]):
    """Sub-batches that run on the calling thread and on helpers.

    The calling thread runs sub-batches, too: waking a thread that hands over the results takes time on busy cores.
    """

    def __init__(self, run: Callable[[slice], _Result], sub_batches: Sequence[slice], threads: int) -> None:
        self._run, self._sub_batches = run, sub_batches
        self._most = _WAITING_PER_THREAD * threads
        # Rules of users run on helpers, too, so they need what the caller has set, for example with `numpy.errstate`.
        contexts = [contextvars.copy_context() for _ in range(threads - 1)]
        self._helpers = [
            threading.Thread(target=context.run, args=(self._help,), name="seewhy-sub-batch") for context in contexts
        ]
        self._changed = threading.Condition()
        # The following values are read and written under the lock of `_changed`.
        self._started = self._taken = 0
        self._end = len(sub_batches)
        self._results: dict[int, _Result] = {}
        self._failures: dict[int, BaseException] = {}

    def hand_over(self, take: Callable[[slice, _Result], object]) -> None:
        """Run all sub-batches and pass their results to `take`, in order."""
        running = []
        try:
            for helper in self._helpers:
                with suppress(RuntimeError):  # the system allows no more threads
                    helper.start()
                    running.append(helper)
            for number, sub_batch in enumerate(self._sub_batches):
                take(sub_batch, self._result(number))
                with self._changed:
                    self._taken += 1
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._end = 0
                self._changed.notify_all()
            for helper in running:
                helper.join()
            self._failures.clear()  # they refer to this object, so they would keep the arrays of their frames alive

    def _result(self, number: int) -> _Result:
        """Return the result of a sub-batch. Until it is there, run others."""
        while True:
            with self._changed:
                while number not in self._results and number not in self._failures and not self._may_start():
                    self._changed.wait()
                if number in self._failures:
                    raise self._failures[number]
                if number in self._results:
                    return self._results.pop(number)
                mine = self._start()
            # An interrupt of the calling thread is raised at once, even if an earlier sub-batch fails.
            self._finish(mine, Exception)

    def _help(self) -> None:
        """Run sub-batches until all have started."""
        while True:
            with self._changed:
                while self._started < self._end and not self._may_start():
                    self._changed.wait()
                if self._started >= self._end:
                    return
                mine = self._start()
            self._finish(mine, BaseException)

    def _may_start(self) -> bool:
        """Return True if a sub-batch is left and few results wait."""
        return self._started < self._end and self._started - self._taken <= self._most

    def _start(self) -> int:
        """Return the number of the next sub-batch."""
        self._started += 1
        return self._started - 1

    def _finish(self, number: int, failures: type[BaseException]) -> None:
        """Run a sub-batch, and keep its result, or its failure of the given kind. After a failure, no others start."""
        try:
            result = self._run(self._sub_batches[number])
        except failures as error:  # raised again on the calling thread
            with self._changed:
                self._failures[number] = error
                self._end = 0
                self._changed.notify_all()
        else:
            with self._changed:
                self._results[number] = result
                self._changed.notify_all()
