"""Run images through the stages of a job on all cores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace

from seewhy.bulk.image_stages import ImageStages
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.parallel_plan import ParallelPlan, plan_parallelism
from seewhy.bulk.thread_pipeline import Stage, run_pipeline
from seewhy.runtime.providers import CPU
from seewhy.storage import output_folder

_UNKNOWN_TOTAL = 1 << 30


def explain_files(
    request: JobRequest,
    tasks: Iterable[ImageTask],
    folder: output_folder.Folder,
    progress: Callable[[int, int], object] | None = None,
    total: int | None = None,
) -> Generator[Outcome, None, None]:
    """Explain each image, write its figures below `folder`, and yield the outcomes in order.

    Reading, running the graph and writing overlap, on as many threads as the explainer uses for one run. Close the
    iterator to stop early; images that have started are finished first. An image that cannot be read, or for which the
    model produces NaN, yields an `Outcome` with an error, and the others continue. Multi-pass methods take one image at
    a time. Nothing is recorded, so a second call explains every image again.

    Args:
        request: The methods, targets and settings.
        tasks: The images, with the names of their results.
        folder: The output folder.
        progress: Function called by another thread as progress(done, total) with numbers of passes for the current
            image.
        total: Number of images, or None if it is unknown.

    Yields:
        The outcome of each image.

    Raises:
        SeewhyError: If an error concerns all images, such as a folder that cannot be written.
    """
    yield from _outcomes(request, tasks, folder, progress, _plan(request, _UNKNOWN_TOTAL if total is None else total))


def explain_rows(request: JobRequest, tasks: Sequence[ImageTask]) -> Iterator[Outcome]:
    """Explain each image and yield the outcomes in order, with rows that the caller stores; nothing is written.

    One thread more than the explainer's number reads files.

    Args:
        request: The methods, targets and settings.
        tasks: The images.

    Yields:
        The outcome of each image.
    """
    plan = _plan(request, len(tasks))
    if request.explainer.threads is not None:
        plan = replace(plan, threads=plan.threads + 1)
    yield from _outcomes(request, tasks, None, None, plan)


def _plan(request: JobRequest, images: int) -> ParallelPlan:
    on_cpu = request.explainer.providers[0] == CPU
    batch_size, multi_pass = request.settings.batch_size, request.has_multi_pass
    return plan_parallelism(images, request.explainer.threads, batch_size, on_cpu=on_cpu, multi_pass=multi_pass)


def _outcomes(
    request: JobRequest,
    tasks: Iterable[ImageTask],
    folder: output_folder.Folder | None,
    progress: Callable[[int, int], object] | None,
    plan: ParallelPlan,
) -> Iterator[Outcome]:
    if plan.threads_per_session is not None:
        request = replace(request, explainer=request.explainer.with_threads(plan.threads_per_session))
    stages = ImageStages(request, folder, progress)
    yield from run_pipeline(
        tasks,
        [
            Stage(stages.load, plan.group_size),
            Stage(stages.explain, plan.batch_size, plan.concurrent_batches),
            Stage(stages.save, plan.group_size),
        ],
        plan.threads,
        plan.window,
    )
