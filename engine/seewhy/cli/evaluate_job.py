"""The job behind `seewhy evaluate`: run it, and print its table and recommendation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from seewhy.bulk.failure_limit import FailureLimit
from seewhy.cli.job_control import Stop, image_arguments, run_job, with_stop
from seewhy.evaluation import text_table
from seewhy.evaluation.evaluation_job import EvaluationJob
from seewhy.evaluation.evaluation_request import EvaluationSettings, resolve_evaluation
from seewhy.evaluation.result import EvaluationResult
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs
from seewhy.methods.options import parse_options
from seewhy.targets.class_targets import read_target

_WIDTH = 120


def run(**chosen: Any) -> int:
    """Run the job and return the exit status."""
    return with_stop(_run, **chosen)


def _run(
    stop: Stop,
    model: Path,
    images: Sequence[str],
    lists: Sequence[str],
    folder: Path,
    target: str | None,
    options: Sequence[str],
    providers: Sequence[str],
    threads: int | None,
    no_verify: bool,
    restart: bool,
    changed: bool,
    retry_failed: bool,
    fail_fast: bool,
    max_failure_rate: float | None,
    **others: Any,
) -> int:
    """Resolve the options and run the job; `others` are fields of `EvaluationSettings`."""
    paths, lists = image_arguments(images, lists)
    wanted = None if target is None else read_target(target)
    settings = EvaluationSettings(target=wanted, options=parse_options(options), **others)
    limit = FailureLimit(fail_fast, max_failure_rate)
    request = resolve_evaluation(Explainer(model, list(providers) or None, threads, not no_verify), settings)
    job = EvaluationJob(
        request,
        Inputs(paths, folder, lists),
        folder,
        restart=restart,
        changed=changed,
        retry_failed=retry_failed,
        stop=stop.event,
        notice=stop.notice,
    )
    status = run_job(job, limit, stop, quiet=True)
    if job.done and stop.signal is None:
        width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
        click.echo(text_table.format_results(EvaluationResult.read(folder).summary, width))
    return status
