"""Many images: found, explained on all cores, and written below a folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.bulk import thread_pipeline
from seewhy.bulk.image_stages import ImageStages
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.parallel_plan import ParallelPlan, plan_parallelism
from seewhy.bulk.settings import Settings
from seewhy.bulk.thread_pipeline import Stage
from seewhy.errors import MethodError, OutputError, TargetError
from seewhy.explainer.explainer import Explainer
from seewhy.images.preprocessing import require_preprocessing
from seewhy.inputs.image_inputs import ImageInput
from seewhy.methods.registry import METHODS
from seewhy.runtime.providers import CPU
from seewhy.storage import output_folder
from seewhy.tables import shard_files
from seewhy.targets.class_targets import resolve_targets, validate_top
from seewhy.visualization import overlays

_MANY = 1 << 30


def explain_files(
    explainer: Explainer,
    found: Iterable[ImageInput],
    folder: output_folder.Folder,
    settings: Settings,
    progress: Callable[[int, int], object] | None = None,
    total: int | None = None,
) -> Generator[Outcome, None, None]:
    """Explain each image and write its pictures below `folder`; yield what became of it, in order.

    Reading, running the graph and writing overlap, on as many threads as the explainer has for one run. Close the
    iterator to stop early: what is in work is finished first. An image that cannot be read, or for which the model
    produces NaN, is an `Outcome` with an error, and the others go on. Methods of many passes take one image at a time,
    so that it is finished before the next begins; `progress` is called as progress(done, total) with the number of
    passes for the image in work, by another thread.

    Nothing is recorded of it: a second call does everything again. `total` is how many images there will be, where
    that is known.

    Raises:
        SeewhyError: what concerns all images: a wrong target or method, or a folder that cannot be written.
    """
    settings = replace(settings, targets=job_targets(explainer, settings.targets))
    layout = _share(explainer, settings, _MANY if total is None else total)
    yield from _outcomes(explainer, found, folder, settings, progress, layout)


def explain_rows(explainer: Explainer, found: Sequence[ImageInput], settings: Settings) -> Iterator[Outcome]:
    """The same where the settings ask for shards, whose rows the caller puts somewhere; nothing is written.

    Beside the explainer's threads there is one that waits for files. The settings' targets are `job_targets`.
    """
    layout = _share(explainer, settings, len(found))
    if explainer.threads is not None:
        layout = replace(layout, threads=layout.threads + 1)
    yield from _outcomes(explainer, found, None, settings, None, layout)


def _share(explainer: Explainer, settings: Settings, images: int) -> ParallelPlan:
    many = any(method.multi_pass is not None for name, method in METHODS.items() if name in settings.methods)
    on_cpu = explainer.providers[0] == CPU
    return plan_parallelism(images, explainer.threads, settings.batch_size, on_cpu=on_cpu, many_passes=many)


def _outcomes(
    explainer: Explainer,
    found: Iterable[ImageInput],
    folder: output_folder.Folder | None,
    settings: Settings,
    progress: Callable[[int, int], object] | None,
    layout: ParallelPlan,
) -> Iterator[Outcome]:
    if layout.threads_per_session is not None:
        explainer = explainer.with_threads(layout.threads_per_session)
    steps = ImageStages(explainer, folder, settings, progress)
    stages = [Stage(steps.load), Stage(steps.explain, layout.size, layout.concurrent_batches), Stage(steps.save)]
    yield from thread_pipeline.run(map(ImageTask, found), stages, layout.threads, layout.window)


def validate_settings(explainer: Explainer, settings: Settings) -> None:
    """Find what is wrong with settings before the first image is read.

    Raises:
        ImageError: the model takes no photographs.
        MethodError: a method or an option is unknown or wrong, or a method has no small map for a shard.
        ArgumentError: the format of shards, the colormap, alpha or the canvas is wrong.
        OutputError: a number of images is wrong.
        TargetError: a target is out of range or unknown, or there are targets and `top` too.
    """
    require_preprocessing(explainer.metadata)
    overlays.validate_drawing_options(settings.colormap, settings.alpha, settings.canvas)
    for name, number in (("batch_size", settings.batch_size), ("shard_images", settings.shard_images)):
        if not is_integer(number) or number < 1:
            raise OutputError(f"{name} must be a positive integer, not {brief(number)}")
    if settings.shards is not None:
        shard_files.check(settings.shards)
    resolved = explainer.resolve_methods(list(settings.methods), settings.options)
    asked = job_targets(explainer, settings.targets)
    if settings.top is not None:
        validate_top(settings.top, explainer.metadata.class_count)
        if asked:
            raise TargetError(f"give target or top, not both (target={brief(asked)}, top={settings.top})")
    for method in resolved:
        if settings.shards is not None and not settings.full_size and not METHODS[method].is_map:
            raise MethodError(
                f"{method} has no small map to put into a shard, but a value for each pixel; ask for full-size "
                f"heatmaps (--full-size, or full_size=True)"
            )


def job_targets(explainer: Explainer, targets: Sequence[int | str]) -> list[int]:
    """The classes asked for, each once, however it was named."""
    if not targets:
        return []
    return list(
        dict.fromkeys(resolve_targets([list(targets)], 1, explainer.metadata.class_count, explainer.labels)[0].tolist())
    )
