"""A run into an output folder whose images are explained by the workers of a Ray cluster.

The driver lists the images, hands their paths out, and alone commits what comes back: shards, manifest, lock and
`run.json` are those of a run on one machine, which can go on with the folder, and the other way round. So nothing
rests on what a writer on a worker does when it is tried again. The driver takes in some thousand images a second;
where that is too few, let the workers write: `ExplainBatch` and `Dataset.write_parquet`
(docs/how-to/several-machines.md).
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
    outcomes,
    ray,
    rebuild_error,
    require_same_facts,
    worker_facts,
)
from seewhy.runtime.providers import Provider
from seewhy.storage import output_folder, provenance

# Their paths take some 50 MB of the cluster's memory. Workers start anew for the next as many.
WAVE = 1 << 19
"""Number of images that are handed to the cluster at once."""
# Runs of the graph in one piece of work, which is what a worker that dies has done for nothing. There are at least so
# many pieces for each worker, so that none idles long at the end.
_RUNS, _PIECES = 16, 8
# For a cluster's first answer.
_SECONDS = 20.0
# onnxruntime's providers that need a GPU, for short.
_ON_GPU = ("cuda", "tensorrt", "nvtensorrtrtx", "rocm", "migraphx")


@dataclass(frozen=True)
class WorkerPlan:
    """What the workers are given."""

    count: int | None = None
    """None: as many as the cluster has room for now."""
    threads: int | None = None
    """For each, and as many CPUs; None: one, or with GPUs each one's share of the CPUs."""
    gpu: bool = False
    """Whether each has a GPU of its own."""


def room_for(asked: WorkerPlan) -> tuple[int, int]:
    """Return how many workers the connected cluster has room for, and the number of threads of each.

    Raises:
        ClusterError: the cluster has no room for one, and nobody said how many to wait for.
    """
    there = ray().cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    threads = asked.threads or (max(1, cpus // max(1, gpus)) if asked.gpu else 1)
    if asked.count is not None:
        return asked.count, threads
    room = min(cpus // threads, gpus) if asked.gpu else cpus // threads
    if room < 1:
        needed = f"{threads} CPUs{' and a GPU' if asked.gpu else ''}"
        raise ClusterError(
            f"a worker needs {needed}, and the Ray cluster has {cpus} CPUs and {gpus} GPUs; give fewer threads, or "
            f"say with --ray-workers how many workers to wait for"
        )
    return room, threads


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be connected to a Ray cluster, and quiet about it.

    Args:
        address: of the cluster, such as `auto` or `10.0.0.1:6379`; None is the one that RAY_ADDRESS names or that runs
            on this machine, and where there is none, one of this machine's cores that ends with this context.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster cannot be reached.
    """
    there = ray().is_initialized()
    ray().data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # importing it has set another
    if there:
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
    address = address or os.environ.get("RAY_ADDRESS") or None
    where = "a Ray cluster on this machine" if address is None else f"the Ray cluster {address}"
    try:
        if address is not None:
            _knock(address)
        with _own_sigterm_handler():
            ray().init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # Ray has no class for what may be wrong here
        raise ClusterError(f"{where} cannot be used: {first_line(error)}") from error
    try:
        yield
    finally:
        ray().shutdown()


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM, in whose place `ray.init` puts one that exits with status 15.

    Raises:
        SystemExit: SIGTERM came during `ray.init`. The exit status is 143.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Look whether anybody listens at HOST:PORT or ray://HOST:PORT: Ray itself would try for many minutes.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()


def check(settings: Settings) -> None:
    """Raises:
    OutputError: they ask for something else than shards of Parquet.
    MissingExtraError: Ray is not installed.
    """
    if settings.format != "parquet":
        raise ArgumentError(f"jobs on a Ray cluster write Parquet shards, not {settings.format}; add --format parquet")
    ray()


def resolve_ray_job(model: str | os.PathLike[str], settings: Settings, verify: bool = True) -> JobRequest:
    """Resolve the settings of a job on a Ray cluster, as `resolve_job` does.

    Raises:
        ArgumentError: If the format is not Parquet, or a method is registered in this process only.
        SeewhyError: As `resolve_job` and `Explainer`.
    """
    check(settings)
    request = resolve_job(Explainer(model, ["cpu"], 1, verify), settings)
    for one in request.methods:
        if "module" in origins.get(one.name, {}):
            raise ArgumentError(
                f"method {one.name} is registered in this process only, and Ray workers lack it; put it into a file of "
                f"its own and give that as a plugin"
            )
    return request


def asks_for_gpu(providers: Sequence[Provider]) -> bool:
    """Whether the first of these is one that needs a GPU: what `--provider cuda` means on a cluster."""
    first = providers[0] if providers else ""
    name = first if isinstance(first, str) else first[0]
    return name.lower().removesuffix("executionprovider") in _ON_GPU


class RayJob(FolderJob):
    """A `FolderJob` whose images are explained on the Ray cluster that this process is connected to.

    Every worker must see the model file, the images and, where paths are relative, the current folder under the names
    that they have here; each checks that its model file and versions are the driver's. A worker that dies is started
    again, and its work in hand done again. A piece of work that kills four of them ends the run.
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
        stop: threading.Event | None = None,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare the job, and have one worker try whether it can do the work; nothing is written yet.

        Args:
            request: What `resolve_ray_job` returned.
            inputs: The images; archives are refused.
            folder: Folder for the results.
            workers: Number and resources of the workers; None is `WorkerPlan()`.
            providers: Execution providers on the workers; none is the CPU, or CUDA if the workers have a GPU.
            verify: Whether workers verify the SHA-256 of the model file.
            restart: As in `FolderJob`.
            changed: As in `FolderJob`.
            stop: As in `FolderJob`.
            notice: As in `FolderJob`.

        Raises:
            ArgumentError: If there are archives among the images.
            ClusterError: If the cluster has no room for a worker, or a worker differs from the driver.
        """
        super().__init__(request, inputs, folder, restart=restart, changed=changed, stop=stop, notice=notice)
        if inputs.total is None:
            raise ArgumentError(
                "tar archives cannot be distributed among Ray workers; unpack them, or explain them without --ray"
            )
        self._workers = WorkerPlan() if workers is None else workers
        self._count, self._threads = room_for(self._workers)
        self._job = {
            "model": os.path.abspath(request.explainer.path),
            "providers": list(providers or (["cuda", "cpu"] if self._workers.gpu else ["cpu"])),
            "threads": self._threads,
            "verify": verify,
        }
        self._place = os.getcwd() if inputs.relative else None
        self._found = self._look()

    def _facts(self) -> provenance.Facts:
        return {**super()._facts(), "providers": list(self._found["providers"])}

    @property
    def _resources(self) -> dict[str, Any]:
        return {"num_cpus": self._threads, **({"num_gpus": 1} if self._workers.gpu else {})}

    def _look(self) -> dict[str, Any]:
        """What a worker brings to the results.

        Raises:
            SeewhyError: it cannot do the work, or has not the driver's model file and versions.
        """
        with _cluster_errors():
            try:
                found: dict[str, Any] = ray().get(
                    ray().remote(**self._resources)(worker_facts).remote(self._job, self._place)
                )
            except ray().exceptions.RayTaskError as error:
                raise ClusterError(
                    f"a Ray worker cannot begin: {first_line(error.cause or error)}; install the same SeeWhy on all "
                    f"machines"
                ) from error
        if "failure" in found:
            raise rebuild_error(*found["failure"])
        require_same_facts(found, {**hashes(self.request.explainer), "versions": provenance.software_versions()})
        return found

    def _explained(
        self, tasks: Iterator[ImageTask], folder: output_folder.Folder, left: int | None
    ) -> Generator[Outcome, None, None]:
        most = _RUNS if self.request.has_multi_pass else _RUNS * self.request.settings.batch_size
        size = most if left is None else max(1, min(most, -(-left // (self._count * _PIECES))))
        numbers, expected = count(), count()
        while pieces := input_tables((task.input for task in islice(tasks, WAVE)), size, numbers):
            yield from self._wave(pieces, expected)

    def _wave(self, pieces: list[Any], expected: Iterator[int]) -> Iterator[Outcome]:
        left = sum(piece.num_rows for piece in pieces)
        with _cluster_errors():
            for table in self._tables(pieces):
                for number, outcome in outcomes(table):
                    if number != next(expected):
                        raise ClusterError(f"{outcome.path}: came back from the Ray cluster out of turn; report a bug")
                    left -= 1
                    yield outcome
                if left and self._should_stop():
                    return
        if left:
            raise ClusterError(f"the Ray cluster left out the answers for {left} images; report a bug")

    def _tables(self, pieces: list[Any]) -> Iterator[Any]:
        settings, size = self.request.settings, pieces[0].num_rows
        dataset = ray().data.from_arrow(pieces)
        pieces.clear()
        dataset.context.execution_options.preserve_order = True
        answers = dataset.map_batches(
            Worker,
            fn_constructor_kwargs={
                "tries": ray().remote(num_cpus=0)(AttemptCounter).remote(),
                "expected": self._found,
                "place": self._place,
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
            # Ray Data starts actors again that died, and what they had in work, without end. Up to version 2.50 it
            # calls this argument deprecated, and later the one that was to replace it.
            compute=ray().data.ActorPoolStrategy(size=self._count),
            **self._resources,
        )
        return iter(answers.iter_batches(batch_size=None, batch_format="pyarrow"))


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Say in one line what is wrong with a cluster; a bug on a worker keeps its traceback."""
    try:
        yield
    except ray().exceptions.RayTaskError:
        raise
    except ray().exceptions.RayError as error:
        raise ClusterError(f"the Ray cluster failed: {first_line(error)}; the same command goes on") from error
