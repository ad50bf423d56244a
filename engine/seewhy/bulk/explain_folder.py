"""Explain many images into a folder, as `seewhy explain` does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.run_job import check_progress, job_controls, path_list, run_job
from seewhy.bulk.settings import Settings
from seewhy.errors import ArgumentError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs


def explain_folder(
    explainer: Explainer | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    restart: bool = False,
    changed: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    max_failure_rate: float | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> JobSummary:
    """Explain many images into a folder, as `seewhy explain` does, and resume where an earlier call stopped.

    Args:
        explainer: An `Explainer`, or the path of a model file.
        images: An image file, a folder (all images below it, sorted), a pattern such as `photos/**/*.jpg` or a tar
            archive, or a list of these.
        folder: Folder for the results; it is created if it does not exist.
        settings: Methods, targets and formats; None is `Settings()`.
        lists: Text files with one path per line, or CSV files with a column `path` and optional columns `target` and
            `id`.
        restart: Whether to discard what earlier attempts recorded in the folder.
        changed: Whether to explain images again whose files have changed since they were explained.
        retry_failed: Whether to explain images again that failed in earlier attempts.
        fail_fast: Whether to stop at the first image that fails.
        max_failure_rate: Share of failed images, from 0 to 1, beyond which the job stops. It counts from 100 images
            on; None never stops the job.
        stop: Event that stops the job once any thread sets it; images that have started are finished first.
        progress: Function called as progress(done, total) with numbers of images. The total is None if `images`
            has archives.

    Returns:
        The numbers of images that were explained and that failed. The manifest holds the reason for each failure.

    Raises:
        ArgumentError: If an argument or a setting is not valid.
        ImageError: If no images are found, or a folder or a list cannot be read.
        OutputError: If results cannot be written, or the folder holds results of another job.
        SeewhyError: If the job cannot start or continue for another reason.
    """
    paths = path_list("images", images)
    lists = path_list("lists", lists)
    folder = checks.path("folder", folder)
    if settings is not None and not isinstance(settings, Settings):
        raise ArgumentError(f"settings must be seewhy.Settings, not {brief(settings)}")
    controls = job_controls(restart, changed, retry_failed, stop)
    limit = FailureLimit(checks.flag("fail_fast", fail_fast), max_failure_rate)
    check_progress(progress)
    explainer = explainer if isinstance(explainer, Explainer) else Explainer(explainer)
    request = resolve_job(explainer, Settings() if settings is None else settings)
    return run_job(FolderJob(request, Inputs(paths, folder, lists), folder, **controls), limit, progress)
