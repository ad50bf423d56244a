"""Plan of threads and batches: many images shared out among the processor's cores."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy._shared.cpu_count import usable_cores


@dataclass(frozen=True)
class ParallelPlan:
    """Threads and batches for one pass over many images."""

    threads: int
    """Threads that decode, run the graph and write."""
    concurrent_batches: int
    """Runs of the graph at the same time."""
    threads_per_session: int | None
    """Threads of onnxruntime and of the kernels in each of them; None: those of the Explainer as it is."""
    size: int
    """Images in one run."""
    window: int
    """Most images on the way."""


def plan_parallelism(
    images: int, threads: int | None, batch_size: int, *, on_cpu: bool, many_passes: bool
) -> ParallelPlan:
    """Share out `threads` threads among `images` images; None: one for each core, and one that waits for files.

    On the CPU each batch runs on one core: no core then waits for another at the end of each layer, or while one
    thread decodes. Images are spread evenly over the batches, so that no core is left alone with a full batch at the
    end. On other providers two batches take turns, so that the kernels of one overlap the graph of the other.
    Multi-pass methods take one image at a time, with all threads, and finish it before the next begins.
    """
    if many_passes:
        return ParallelPlan(1, 1, None, 1, 1)
    cores = threads or usable_cores()
    waits = 1 if threads is None else 0
    if not on_cpu:
        return ParallelPlan(cores + waits, 2, None, batch_size, 4 * batch_size)
    concurrent = max(1, min(cores, images))
    rounds = max(1, _divide_up(images, concurrent * batch_size))
    size = max(1, _divide_up(images, concurrent * rounds))
    # Twice the images in work, so that the next batches can be read before the last of these is written.
    return ParallelPlan(
        cores + waits, concurrent, None if concurrent == 1 else cores // concurrent, size, 2 * concurrent * size
    )


def _divide_up(count: int, by: int) -> int:
    return -(-count // by)
