"""Plan how many threads and batches share the images of a job."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy._shared.cpu_count import usable_cores


@dataclass(frozen=True)
class ParallelPlan:
    """Numbers of threads and images for the pipeline of a job."""

    threads: int
    """Number of threads that decode, run the graph and write."""
    concurrent_batches: int
    """Maximum number of batches that run at the same time."""
    threads_per_session: int | None
    """Number of threads that onnxruntime and the kernels use for one batch; None keeps the explainer's number."""
    batch_size: int
    """Number of images in one batch."""
    window: int
    """Maximum number of images in the pipeline."""
    group_size: int = 1
    """Number of images that a thread loads, or saves, in one call."""


# Threads that exchange images one by one wake each other more often, and load and save with cold caches.
_GROUP_SIZE = 4


def plan_parallelism(
    images: int, threads: int | None, batch_size: int, *, on_cpu: bool, multi_pass: bool
) -> ParallelPlan:
    """Choose how many batches run at the same time, and how many images and threads each has.

    On the CPU each batch runs on one core. No core then waits for another at the end of each layer, or while a thread
    decodes. The images are spread evenly over the batches, so that no core runs a full batch alone at the end.

    On other providers two batches run at the same time, so that the kernels of one overlap the graph of the other.

    Multi-pass methods take one image at a time, with all threads, and finish it before the next one starts.

    Args:
        images: Number of images.
        threads: Number of threads; None is one for each usable core, and one more that reads files.
        batch_size: Maximum number of images in one batch.
        on_cpu: Whether the graph runs on the CPU.
        multi_pass: Whether the job has a multi-pass method.

    Returns:
        The plan.
    """
    if multi_pass:
        return ParallelPlan(1, 1, None, 1, 1)
    cores = threads or usable_cores()
    reader = 1 if threads is None else 0
    if not on_cpu:
        return ParallelPlan(cores + reader, 2, None, batch_size, 4 * batch_size, _group_size(batch_size))
    concurrent = max(1, min(cores, images))
    rounds = max(1, _divide_up(images, concurrent * batch_size))
    size = max(1, _divide_up(images, concurrent * rounds))
    # The window holds two rounds of batches, so that the next images are read before the last ones are written.
    per_session = None if concurrent == 1 else cores // concurrent
    return ParallelPlan(cores + reader, concurrent, per_session, size, 2 * concurrent * size, _group_size(size))


def _group_size(batch_size: int) -> int:
    """Return the number of images in a group: at most half a batch, so that groups and a batch fit into the window."""
    return max(1, min(_GROUP_SIZE, batch_size // 2))


def _divide_up(count: int, by: int) -> int:
    return -(-count // by)
