"""The job behind `seewhy explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.settings import Settings
from seewhy.cli.job_control import Stop, image_arguments, run_job, with_stop
from seewhy.errors import ArgumentError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs
from seewhy.methods.options import parse_options
from seewhy.targets.class_targets import read_target


def run(**chosen: Any) -> int:
    """Run the job and return the exit status."""
    return with_stop(_run, **chosen)


def _run(
    stop: Stop,
    model: Path,
    images: Sequence[str],
    lists: Sequence[str],
    folder: Path,
    methods: Sequence[str],
    targets: Sequence[str],
    options: Sequence[str],
    format_: str,
    providers: Sequence[str],
    threads: int | None,
    no_verify: bool,
    restart: bool,
    changed: bool,
    retry_failed: bool,
    fail_fast: bool,
    max_failure_rate: float | None,
    use_ray: bool,
    ray_address: str | None,
    ray_workers: int | None,
    quiet: bool,
    **others: Any,
) -> int:
    """Resolve the options and run the job; `others` are fields of `Settings`."""
    settings = Settings(
        methods,
        [read_target(text) for text in targets],
        options=parse_options(options),
        format=format_,
        **others,
    )
    paths, lists = image_arguments(images, lists)
    if not use_ray and (ray_address is not None or ray_workers is not None):
        raise ArgumentError("--ray-address and --ray-workers are for jobs on a Ray cluster; add --ray")
    limit = FailureLimit(fail_fast, max_failure_rate)
    common: dict[str, Any] = {"restart": restart, "changed": changed, "retry_failed": retry_failed}
    common |= {"stop": stop.event, "notice": stop.notice}
    if not use_ray:
        explainer = Explainer(model, list(providers) or None, threads, not no_verify)
        request = resolve_job(explainer, settings)  # report mistakes before images are listed, which may take long
        job = FolderJob(request, Inputs(paths, folder, lists), folder, progress=stop.show_passes, **common)
        return run_job(job, limit, stop, quiet)
    from seewhy.ray import cluster_job

    request = cluster_job.resolve_ray_job(model, settings, verify=not no_verify)  # before a cluster is started
    workers = cluster_job.WorkerPlan(ray_workers, threads, cluster_job.needs_gpu(providers))
    with cluster_job.connected(ray_address):
        inputs = Inputs(paths, folder, lists)
        ray_job = cluster_job.RayJob(
            request, inputs, folder, workers, providers=providers, verify=not no_verify, **common
        )
        return run_job(ray_job, limit, stop, quiet)
