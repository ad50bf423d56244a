"""A job into an output folder whose images are explained by the workers of a Ray cluster.

The driver lists the images, distributes their paths, and is the only process that writes results. Shards, manifest,
lock and `run.json` equal those of a job on one machine, so a job can be resumed with or without the cluster. Results
therefore do not depend on how a worker's writes behave when they are repeated.

The driver receives a few thousand images per second. For more, let the workers write the results, with `ExplainBatch`
and `Dataset.write_parquet` (docs/how-to/several-machines.md).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from seewhy._shared.text import first_line
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import JobRequest, resolve_job
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.settings import Settings
from seewhy.errors import ArgumentError, ClusterError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs
from seewhy.methods.plugins import read_plugin
from seewhy.methods.registry import origins
from seewhy.ray.worker import (
    AttemptCounter,
    Worker,
    hashes,
    input_tables,
    ray,
    read_outcomes,
    rebuild_error,
    require_same_facts,
    worker_facts,
)
from seewhy.runtime.providers import Provider
from seewhy.storage import output_folder, provenance

# The paths of a wave take about 50 MB of the cluster's memory. New workers start for each wave.
IMAGES_PER_WAVE = 1 << 19
"""Maximum number of images that are distributed to the cluster at once."""
# A chunk is the work that is lost when a worker dies. Several chunks for each worker avoid idle workers at the end.
_BATCHES_PER_CHUNK, _MIN_CHUNKS_PER_WORKER = 16, 8
# Time for a cluster to accept a connection.
_CONNECT_SECONDS = 20.0
# Short names of the onnxruntime providers that need a GPU.
_GPU_PROVIDERS = ("cuda", "tensorrt", "nvtensorrtrtx", "rocm", "migraphx")


@dataclass(frozen=True)
class WorkerPlan:
    """Number and resources of the workers of a job."""

    count: int | None = None
    """Number of workers; None is as many as the cluster has room for now."""
    threads: int | None = None
    """Number of threads and CPUs of each worker; None is 1, or with GPUs an equal share of the CPUs."""
    gpu: bool = False
    """True if each worker has a GPU of its own."""


def resolve_workers(plan: WorkerPlan) -> tuple[int, int]:
    """Resolve the number of workers and threads against the resources of the connected cluster.

    Args:
        plan: The plan.

    Returns:
        The number of workers, and the number of threads of each.

    Raises:
        ClusterError: If the plan leaves the number of workers open, and the cluster has no room for one.
    """
    resources = ray().cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    threads = plan.threads or (max(1, cpus // max(1, gpus)) if plan.gpu else 1)
    if plan.count is not None:
        return plan.count, threads
    room = min(cpus // threads, gpus) if plan.gpu else cpus // threads
    if room < 1:
        needed = f"{threads} CPUs{' and a GPU' if plan.gpu else ''}"
        raise ClusterError(
            f"a worker needs {needed}, but the Ray cluster has {cpus} CPUs and {gpus} GPUs; use fewer threads, or wait "
            f"for a number of workers with --ray-workers"
        )
    return room, threads


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster for the time of the context, without messages of Ray.

    A connection that exists already is used and stays open.

    Args:
        address: Address of the cluster, such as `auto` or `10.0.0.1:6379`. None is the cluster that RAY_ADDRESS names,
            or the one that runs on this machine, or else a new one on this machine that ends with the context.

    Raises:
        MissingExtraError: If Ray is not installed.
        ClusterError: If the cluster cannot be reached.
    """
    is_connected = ray().is_initialized()
    ray().data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # importing ray.data sets another level
    if is_connected:
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # the user has not agreed to usage statistics
    address = address or os.environ.get("RAY_ADDRESS") or None
    where = "a Ray cluster on this machine" if address is None else f"the Ray cluster {address}"
    try:
        if address is not None:
            _check_reachable(address)
        with _own_sigterm_handler():
            ray().init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # Ray has no common class for these errors
        raise ClusterError(f"{where} cannot be used: {first_line(error)}") from error
    try:
        yield
    finally:
        ray().shutdown()


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM, because `ray.init` installs one that exits with status 15.

    Raises:
        SystemExit: If SIGTERM comes during `ray.init`. The exit status is 143.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_reachable(address: str) -> None:
    """Connect to HOST:PORT or ray://HOST:PORT, because Ray itself would try for many minutes.

    Args:
        address: Address of the cluster.

    Raises:
        OSError: If no process listens there.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def check(settings: Settings) -> None:
    """Validate the settings of a job on a Ray cluster.

    Args:
        settings: The settings.

    Raises:
        ArgumentError: If the format is not Parquet.
        MissingExtraError: If Ray is not installed.
    """
    if settings.format != "parquet":
        raise ArgumentError(f"jobs on a Ray cluster write Parquet shards, not {settings.format}; add --format parquet")
    ray()


def resolve_ray_job(model: str | os.PathLike[str], settings: Settings, verify: bool = True) -> JobRequest:
    """Resolve the settings of a job on a Ray cluster, as `resolve_job` does.

    Args:
        model: Path of the model file.
        settings: Settings of the job.
        verify: Whether to verify the SHA-256 of the model file.

    Returns:
        The resolved settings.

    Raises:
        ArgumentError: If the format is not Parquet, or a method is registered in this process only.
        SeewhyError: As `resolve_job` and `Explainer`.
    """
    check(settings)
    request = resolve_job(Explainer(model, ["cpu"], 1, verify), settings)
    for one in request.methods:
        if "module" in origins.get(one.name, {}):
            raise ArgumentError(
                f"method {one.name} is registered in this process only, so Ray workers lack it; put it into a file, "
                f"and give the file as a plugin"
            )
    return request


def needs_gpu(providers: Sequence[Provider]) -> bool:
    """Return whether the first provider needs a GPU. On a cluster, each worker then gets one."""
    first = providers[0] if providers else ""
    name = first if isinstance(first, str) else first[0]
    return name.lower().removesuffix("executionprovider") in _GPU_PROVIDERS


class RayJob(FolderJob):
    """A `FolderJob` whose images are explained on the Ray cluster that this process is connected to.

    All workers must find the model file and the images under the same paths as the driver, and also the current folder
    if paths are relative. Each worker verifies that its model file and versions equal the driver's.

    A worker that dies is replaced, and its chunk of images is explained again. A chunk that kills four workers ends the
    job.
    """

    def __init__(
        self,
        request: JobRequest,
        inputs: Inputs,
        folder: str | os.PathLike[str],
        workers: WorkerPlan | None = None,
        *,
        providers: Sequence[Provider] | None = None,
        verify: bool = True,
        restart: bool = False,
        changed: bool = False,
        retry_failed: bool = False,
        stop: threading.Event | None = None,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare the job, and test on one worker whether it can do the work; nothing is written yet.

        Args:
            request: Resolved settings, from `resolve_ray_job`.
            inputs: The images; archives are refused.
            folder: Folder for the results.
            workers: Number and resources of the workers; None is `WorkerPlan()`.
            providers: Execution providers on the workers; None is the CPU, or CUDA if the workers have a GPU.
            verify: Whether workers verify the SHA-256 of the model file.
            restart: As in `FolderJob`.
            changed: As in `FolderJob`.
            retry_failed: As in `FolderJob`.
            stop: As in `FolderJob`.
            notice: As in `FolderJob`.

        Raises:
            ArgumentError: If the inputs have archives.
            ClusterError: If the cluster has no room for a worker, or a worker differs from the driver.
        """
        resume: dict[str, Any] = {"restart": restart, "changed": changed, "retry_failed": retry_failed}
        super().__init__(request, inputs, folder, stop=stop, notice=notice, **resume)
        if inputs.total is None:
            raise ArgumentError(
                "tar archives cannot be distributed among Ray workers; unpack them, or explain them without --ray"
            )
        self._workers = WorkerPlan() if workers is None else workers
        self._count, self._threads = resolve_workers(self._workers)
        self._job = {
            "model": os.path.abspath(request.explainer.path),
            "providers": list(providers or (["cuda", "cpu"] if self._workers.gpu else ["cpu"])),
            "threads": self._threads,
            "verify": verify,
        }
        self._working_folder = os.getcwd() if inputs.relative else None
        self._worker_facts = self._check_worker()

    def _facts(self) -> provenance.Facts:
        return {**super()._facts(), "providers": list(self._worker_facts["providers"])}

    @property
    def _resources(self) -> dict[str, Any]:
        return {"num_cpus": self._threads, **({"num_gpus": 1} if self._workers.gpu else {})}

    def _check_worker(self) -> dict[str, Any]:
        """Return the facts about a worker that determine the results.

        Returns:
            Facts about the worker.

        Raises:
            SeewhyError: If the worker cannot do the work, or its model file or versions differ from the driver's.
        """
        with _cluster_errors():
            try:
                found: dict[str, Any] = ray().get(
                    ray().remote(**self._resources)(worker_facts).remote(self._job, self._working_folder)
                )
            except ray().exceptions.RayTaskError as error:
                raise ClusterError(
                    f"a Ray worker cannot start: {first_line(error.cause or error)}; install the same version of "
                    f"SeeWhy on all machines"
                ) from error
        if "failure" in found:
            raise rebuild_error(*found["failure"])
        require_same_facts(found, {**hashes(self.request.explainer), "versions": provenance.software_versions()})
        return found

    def _explained(
        self, tasks: Iterator[ImageTask], folder: output_folder.Folder, left: int | None
    ) -> Generator[Outcome, None, None]:
        largest = _BATCHES_PER_CHUNK * (1 if self.request.has_multi_pass else self.request.settings.batch_size)
        size = largest if left is None else max(1, min(largest, -(-left // (self._count * _MIN_CHUNKS_PER_WORKER))))
        numbers, expected = count(), count()
        while chunks := input_tables((task.input for task in islice(tasks, IMAGES_PER_WAVE)), size, numbers):
            yield from self._explain_wave(chunks, expected)

    def _explain_wave(self, chunks: list[Any], expected: Iterator[int]) -> Iterator[Outcome]:
        left = sum(chunk.num_rows for chunk in chunks)
        with _cluster_errors():
            for table in self._result_tables(chunks):
                for number, outcome in read_outcomes(table):
                    if number != next(expected):
                        raise ClusterError(
                            f"{outcome.path}: the Ray cluster returned results in the wrong order; please report a bug"
                        )
                    left -= 1
                    yield outcome
                if left and self._should_stop():
                    return
        if left:
            raise ClusterError(f"the Ray cluster returned no results for {left} images; please report a bug")

    def _result_tables(self, chunks: list[Any]) -> Iterator[Any]:
        settings, size = self.request.settings, chunks[0].num_rows
        dataset = ray().data.from_arrow(chunks)
        chunks.clear()
        dataset.context.execution_options.preserve_order = True
        results = dataset.map_batches(
            Worker,
            fn_constructor_kwargs={
                "attempts": ray().remote(num_cpus=0)(AttemptCounter).remote(),
                "expected": self._worker_facts,
                "working_folder": self._working_folder,
                **self._job,
                "method": list(settings.methods),
                "target": list(self.request.targets),
                "top": settings.top,
                "options": settings.options,
                "plugins": [read_plugin(path) for path in settings.plugins],
                "full_size": settings.full_size,
                "fast_decode": settings.fast_decode,
                "batch_size": settings.batch_size,
                "records": True,
            },
            batch_size=size,
            # Ray Data replaces actors that die and repeats their work without limit. Ray 2.50 and older call this
            # argument deprecated; newer versions deprecate its replacement instead.
            compute=ray().data.ActorPoolStrategy(size=self._count),
            **self._resources,
        )
        return iter(results.iter_batches(batch_size=None, batch_format="pyarrow"))


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Turn errors of the cluster into one line; a bug on a worker keeps its traceback."""
    try:
        yield
    except ray().exceptions.RayTaskError:
        raise
    except ray().exceptions.RayError as error:
        raise ClusterError(f"the Ray cluster failed: {first_line(error)}; the same command resumes the job") from error
