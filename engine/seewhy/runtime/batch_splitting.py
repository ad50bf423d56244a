"""A batch in pieces: each piece runs on one core by itself, instead of every layer on all of them.

Cores then wait for each other once a batch and not once a layer, what onnxruntime does on one thread only (transposed
convolutions, say) uses all cores too, and the maps of a small piece stay in the cache between the forward pass and the
backward pass that reads them again. Results are the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

# Bytes of matrices for each image of a piece. A convolution reads a weight once and uses it at every place; a linear
# layer of a few images does little but read. So large ones (AlexNet, VGG) want large pieces, or none.
_MATRICES_PER_IMAGE = 20_000_000
# Bytes of all weights of a network that a cache holds beside the maps: reading them again for each image is cheap.
IN_CACHE = 24_000_000
# Of the cores' time, what must be in use to the end for pieces to be worth it.
_LEAST_IN_USE = 0.85


def is_worth_splitting(rows: int, threads: int, matrices: int) -> bool:
    """Whether `rows` images, a piece to each thread, keep the threads busy, and not with reading `matrices` bytes."""
    each = -(-rows // threads)
    return rows > 1 and rows >= _LEAST_IN_USE * threads * each and matrices <= each * _MATRICES_PER_IMAGE


def split_rows(rows: int, threads: int, matrices: int, small: bool) -> list[slice]:
    """Cut `rows` images into pieces of nearly one size, as many for each of `threads`.

    One each, unless `small`: where a backward pass to the image reads again what the forward pass has left, or where
    all weights stay in a cache, pieces are as small as `matrices`, in bytes, allow. Otherwise a forward pass gains less
    from that than reading weights again costs.
    """
    largest = max(1, -(-matrices // _MATRICES_PER_IMAGE)) if small else rows
    rounds = -(-rows // (largest * threads))
    count = min(rows, rounds * threads)
    edges = [rows * i // count for i in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def run_slices(work: Callable[[slice], _Result], parts: Sequence[slice], threads: int) -> list[_Result]:
    """The results of `work` for every part, in order, on at most `threads` threads, which live during the call.

    The first failure, in order, is raised when all threads are done; parts that were not begun by then are left out.
    """
    workers = min(threads, len(parts))
    if workers == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(workers, "seewhy-piece") as pool:
        return list(pool.map(work, parts))
