"""Evaluate methods on many images, as `seewhy evaluate` does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seewhy._shared import checks
from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.outcomes import Outcome
from seewhy.bulk.run_job import job_controls, path_list, run_job
from seewhy.errors import ImageError, SeewhyError
from seewhy.evaluation.evaluation_job import EvaluationJob
from seewhy.evaluation.evaluation_request import EvaluationSettings, resolve_evaluation
from seewhy.evaluation.result import EvaluationResult
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs


def evaluate(
    explainer: Explainer | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    methods: str | Sequence[str] = (),
    metrics: str | Sequence[str] = (),
    target: int | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    attributions: str | os.PathLike[str] | None = None,
    regions: str | os.PathLike[str] | None = None,
    reduction: str | None = None,
    folders_are_clusters: bool = False,
    seed: int = 0,
    lists: Sequence[str | os.PathLike[str]] = (),
    plugins: Sequence[str | os.PathLike[str]] = (),
    restart: bool = False,
    changed: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    max_failure_rate: float | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> EvaluationResult:
    """Compare methods by numbers: faithfulness, localisation, class sensitivity, robustness, complexity and cost.

    The results are recorded image by image, and a second call with the same arguments resumes where the first stopped.

    Args:
        explainer: An `Explainer`, or the path of a model file.
        images: As in `explain_folder`.
        folder: Folder for the results; it is created if it does not exist.
        methods: Names of methods. None given: backprop, guided-backprop, cam, gradcam, guided-gradcam and layercam, as
            far as the file can serve them. The references `random` and `centre` are always added.
        metrics: Names of metrics; `all` stands for all. None given: all that need few passes.
        target: Class index or label to explain for each image; None is the predicted class. A list of images may give
            a target for each.
        options: Options by method or metric, and by name: {"deletion": {"baseline": "black"}}.
        attributions: Folder with maps of other tools: METHOD/NAME.npz, where NAME is the path of the image's results,
            with an array `attribution`, float32 of shape (H, W) or (C, H, W) of the model's input size.
        regions: CSV or COCO file with boxes or masks of objects, for the metrics of localisation.
        reduction: `sum` or `max-abs`: the reduction of all attributions with channels to one value a pixel. None is the
            reduction of each method.
        folders_are_clusters: Whether the images of one folder count as one cluster, such as crops of one photograph.
        seed: Seed of all random numbers.
        lists: As in `explain_folder`.
        plugins: Python files that register methods or metrics.
        restart: As in `explain_folder`.
        changed: As in `explain_folder`.
        retry_failed: As in `explain_folder`.
        fail_fast: As in `explain_folder`.
        max_failure_rate: As in `explain_folder`.
        stop: As in `explain_folder`.
        progress: As in `explain_folder`.

    Returns:
        Means with intervals for each metric and method, the values of each image, and a recommendation in words.

    Raises:
        ArgumentError: If an argument is not valid; `MethodError`, `MetricError` and `TargetError` are kinds of it.
        ImageError: If no images are found, none can be measured, or a folder or a list cannot be read.
        OutputError: If results cannot be written, or the folder holds results of another job.
        SeewhyError: If the job cannot start or continue for another reason.
    """
    paths, folder = path_list("images", images), checks.path("folder", folder)
    settings = EvaluationSettings(
        [methods] if isinstance(methods, str) else methods,
        [metrics] if isinstance(metrics, str) else metrics,
        target,
        {} if options is None else options,
        path_list("plugins", plugins),
        attributions,
        regions,
        reduction,
        folders_are_clusters,
        seed,
    )
    controls = job_controls(restart, changed, retry_failed, stop)
    limit = FailureLimit(checks.flag("fail_fast", fail_fast), max_failure_rate)
    explainer = explainer if isinstance(explainer, Explainer) else Explainer(explainer)
    request = resolve_evaluation(explainer, settings)
    job = EvaluationJob(request, Inputs(paths, folder, path_list("lists", lists)), folder, **controls)
    errors: list[SeewhyError] = []

    def note_failure(outcome: Outcome) -> None:
        if outcome.error is not None and not errors:
            errors.append(outcome.error)

    run_job(job, limit, progress, note_failure)
    if not job.done:
        reason = errors[0] if errors else "they failed in earlier attempts, or the job was stopped"
        raise ImageError(f"none of the images was measured: {reason}")
    return EvaluationResult.read(folder)
