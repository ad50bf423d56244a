"""Split a batch into sub-batches that run on one core each, instead of running every layer on all cores.

Cores then wait for each other once per batch instead of once per layer. Operators that onnxruntime runs on one thread
(transposed convolutions, for example) use all cores too. The maps of a small sub-batch stay in the cache between the
forward pass and the backward pass that reads them again. The results have the same bits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

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
    sub_batches: Iterable[slice],
    threads: int,
    take: Callable[[slice, _Result], object],
) -> None:
    """Run sub-batches in parallel, and hand over their results in order.

    Only a few results exist at a time, so memory does not grow with the number of sub-batches.

    Args:
        run: Function that runs one sub-batch, on any of the threads.
        sub_batches: Images of each sub-batch.
        threads: Maximum number of threads. They end with the call.
        take: Function that receives each sub-batch and its result, on the calling thread.

    Raises:
        Exception: If a sub-batch or `take` fails: the first failure in the order of the sub-batches, once all threads
            are done. Sub-batches that have not started by then are skipped.
    """
    if threads == 1:
        for sub_batch in sub_batches:
            take(sub_batch, run(sub_batch))
        return
    from concurrent.futures import ThreadPoolExecutor  # takes long to import, and a single image needs none

    with ThreadPoolExecutor(threads, "seewhy-sub-batch") as pool:
        waiting: deque[tuple[slice, Future[_Result]]] = deque()
        try:
            for sub_batch in sub_batches:
                waiting.append((sub_batch, pool.submit(run, sub_batch)))
                if len(waiting) > _WAITING_PER_THREAD * threads:
                    first, result = waiting.popleft()
                    take(first, result.result())
            while waiting:
                first, result = waiting.popleft()
                take(first, result.result())
        finally:
            for _, result in waiting:
                result.cancel()
