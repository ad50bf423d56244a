"""Explain many images into a folder, as `seewhy explain` does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.settings import Settings
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
    fail_fast: bool = False,
    max_failure_rate: float | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> JobSummary:
    """Explain many images into a folder, going on where an earlier call stopped; what `seewhy explain` does.

    Args:
        explainer: an `Explainer`, or a model file.
        images, lists: as in `Inputs`.
        folder, settings, restart, changed, stop: as in `FolderJob`; `stop` is only read.
        fail_fast: stop at the first image that fails.
        max_failure_rate: stop when a larger share of the images has failed, of the first hundred or more.
        progress: called as progress(images done or failed, images in all; None where archives are among them).

    Returns:
        What became of it. Images that failed are in the manifest with the reason.

    Raises:
        SeewhyError: the run could not be started, or not go on: a wrong method, a full disk, a vanished folder.
    """
    paths = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    explainer = explainer if isinstance(explainer, Explainer) else Explainer(explainer)
    run = FolderJob(
        explainer, Inputs(paths, folder, lists), folder, settings, restart=restart, changed=changed, stop=stop
    )
    limit = FailureLimit(fail_fast, max_failure_rate)
    with closing(iter(run)) as outcomes:
        for outcome in outcomes:
            limit.record(run, outcome)
            if progress is not None:
                progress(run.done + run.failed, run.total)
    return run.summary(limit.reason or ("stopped" if run.stopped else None))
