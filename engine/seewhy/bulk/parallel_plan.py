"""Plan of threads and batches: many images shared out among the processor's cores."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy._shared.cpu_count import usable_cores


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


def share(images: int, threads: int | None, batch_size: int, *, on_cpu: bool, many_passes: bool) -> Layout:
    """Share out `threads` threads among `images` images; None: one for each core, and one that waits for files.

    On the CPU every run has a core to itself, as far as there are images: no core then waits for another at the end of
    each layer, or while one thread decodes. Images are spread evenly over the runs, so that none is left alone with a
    full batch at the end. On other providers two runs take turns, so that the kernels of one overlap the graph of the
    other. Methods of many passes take one image at a time, with all threads, and finish it before the next begins.
    """
    if many_passes:
        return Layout(1, 1, None, 1, 1)
    cores = threads or usable_cores()
    waits = 1 if threads is None else 0
    if not on_cpu:
        return Layout(cores + waits, 2, None, batch_size, 4 * batch_size)
    runs = max(1, min(cores, images))
    rounds = max(1, _divide_up(images, runs * batch_size))
    size = max(1, _divide_up(images, runs * rounds))
    # Twice what is in the runs: the next batches can be read before the last of these is written.
    return Layout(cores + waits, runs, None if runs == 1 else cores // runs, size, 2 * runs * size)


def _divide_up(count: int, by: int) -> int:
    return -(-count // by)
