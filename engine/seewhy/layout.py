"""How the work on many images is shared out among the processor's cores."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .sessions import CPU

BATCH_SIZE = 8
"""Images in one run of the graph, where nobody says otherwise."""


@dataclass(frozen=True)
class Layout:
    """Threads and batches for one pass over many images."""

    threads: int
    """Threads that decode, run the graph and write."""
    runs: int
    """Runs of the graph at the same time."""
    run_threads: int | None
    """Threads of onnxruntime and of the kernels in each of them; None: those of the Explainer as it is."""
    size: int
    """Images in one run."""
    window: int
    """Most images on the way."""


def share(images: int, threads: int | None, batch_size: int, provider: str, many_passes: bool) -> Layout:
    """Share out `threads` threads (None: one for each core that this process may use) among `images` images.

    On the CPU every run has a core to itself, as far as there are images: no core then waits for another at the end of
    each layer, or while one thread decodes. Images are spread evenly over the runs, so none is left alone with a full
    batch. On other providers two runs take turns, so that one's kernels and copies overlap the other's graph. Methods
    of many passes take one image at a time, with all threads, and finish it before the next begins.
    """
    if many_passes:
        return Layout(1, 1, None, 1, 1)
    total = threads or available()
    if provider != CPU:
        return Layout(total + 2, 2, None, batch_size, 4 * batch_size)
    runs = max(1, min(total, images))
    rounds = -(-images // (runs * batch_size))
    size = max(1, -(-images // max(1, rounds * runs)))
    # With two batches a run, the first of them has not to be written before the next can be decoded.
    return Layout(total, runs, None if runs == 1 else total // runs, size, 2 * runs * size)


def available() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
