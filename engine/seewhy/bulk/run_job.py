"""Arguments that `explain_folder` and `evaluate` share, and the run of a job to its end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import ArgumentError


def job_controls(restart: bool, changed: bool, retry_failed: bool, stop: threading.Event | None) -> dict[str, Any]:
    """Validate arguments of `explain_folder` and `evaluate`, and return them by name for `FolderJob`."""
    if stop is not None and not isinstance(stop, threading.Event):
        raise ArgumentError(f"stop must be a threading.Event, not {brief(stop)}")
    return {
        "restart": checks.flag("restart", restart),
        "changed": checks.flag("changed", changed),
        "retry_failed": checks.flag("retry_failed", retry_failed),
        "stop": stop,
    }


def run_job(
    job: FolderJob,
    limit: FailureLimit,
    progress: Callable[[int, int | None], object] | None = None,
    outcome_seen: Callable[[Outcome], object] = lambda outcome: None,
) -> JobSummary:
    """Run a job to its end.

    Args:
        job: The job.
        limit: Number of failures that stops it.
        progress: Function called as progress(done, total) with numbers of images.
        outcome_seen: Function called with the outcome of each image.

    Returns:
        The numbers of images, and why the job stopped early.

    Raises:
        ArgumentError: If `progress` is not a function.
        SeewhyError: If the job cannot continue.
    """
    check_progress(progress)
    with closing(iter(job)) as outcomes:
        for outcome in outcomes:
            limit.record(job, outcome)
            outcome_seen(outcome)
            if progress is not None:
                progress(job.done + job.failed, job.total)
    return job.summary(limit.reason or ("stopped" if job.stopped else None))


def check_progress(progress: Any) -> None:
    """Raise an `ArgumentError` if `progress` is neither a function nor None."""
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress must be a function of two numbers, not {brief(progress)}")


def path_list(name: str, value: Any) -> list[str]:
    """Validate paths, and return a list of paths for one path, or a list or tuple of them."""
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ArgumentError(f"{name} must be a path or a list of paths, not {brief(value)}")
    return [checks.path(f"each of {name}", one) for one in value]
