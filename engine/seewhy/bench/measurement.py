"""Measure the speed of a model file: its forward pass and its methods, by provider, batch size and threads.

Each batch size of each provider is measured in its own process (`worker.py`), so that running out of memory ends only
that process.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime

from seewhy._core import cpu_features
from seewhy._shared.checks import is_integer
from seewhy._shared.cpu_count import most_threads, usable_cores
from seewhy._shared.text import brief
from seewhy._version import __version__
from seewhy.bench import worker
from seewhy.bench.protocol import FORWARD, BenchCase, WorkerTask
from seewhy.errors import ArgumentError
from seewhy.methods import registry as methods
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.providers import CPU, Provider
from seewhy.runtime.sessions import SessionCache

__all__ = ["FORWARD", "Advice", "Measurement", "Operator", "Report", "measure"]

BATCHES = (1, 8, 32)
METHODS = ("gradcam", "guided-backprop")
SECONDS, ROUNDS = 2.0, 5
MAX_BATCH = 1_000_000
"""Maximum batch size."""
# Share of the highest throughput at which a smaller batch is recommended: it needs less memory and has lower latency.
_NEAR_BEST = 0.97
_T = TypeVar("_T")


@dataclass(frozen=True)
class Measurement:
    """Speed of a method with one combination of settings."""

    provider: str
    """Name of the execution provider."""
    workers: int
    """Number of callers that run batches in parallel."""
    threads: int | None
    """Maximum number of threads of one run, or None if the provider decides."""
    batch: int
    """Batch size."""
    method: str
    """Name of a method, measured from arrays to heatmaps, or `forward` for the graph pruned to its logits."""
    runs: int = 0
    """Number of measured runs."""
    p50: float | None = None
    """Median time of a batch, in milliseconds."""
    p90: float | None = None
    """90th percentile of the time of a batch, in milliseconds."""
    p99: float | None = None
    """99th percentile of the time of a batch, in milliseconds."""
    images_per_second: float | None = None
    """Throughput of all workers together."""
    ratio: float | None = None
    """`p50` divided by that of `forward` with the same settings, measured in the same rounds."""
    error: str | None = None
    """Reason why the method could not be measured, or None."""


@dataclass(frozen=True)
class Advice:
    """Best measured settings for a method."""

    provider: str
    """Name of the execution provider."""
    method: str
    """Name of the method."""
    lowest_latency: Measurement
    """Measurement with the lowest median time for a single caller, with the smallest batch size."""
    highest_throughput: Measurement
    """Measurement with the smallest batch size whose throughput is at least 97 % of the highest."""


@dataclass(frozen=True)
class Operator:
    """All operators of one type in one part of the graph, measured on one thread."""

    provider: str
    """Name of the execution provider."""
    method: str
    """Name of a method, or `forward`."""
    batch: int
    """Batch size."""
    part: str
    """`forward` if the logits need the operators, `backward` if not, `unknown` if onnxruntime does not tell."""
    type: str
    """Type of the operators, as onnxruntime names it."""
    count: int
    """Number of these operators in one run."""
    milliseconds: float
    """Total time of these operators in one run, in milliseconds."""
    share: float
    """Share of these operators in the time of all operators, from 0 to 1."""


@dataclass(frozen=True)
class Report:
    """Result of `measure`."""

    file: str
    """Path of the model file."""
    model: str
    """Name of the model."""
    machine: Mapping[str, Any]
    """Processor, cores and software of the machine."""
    rows: Sequence[Measurement]
    """All measurements."""
    advice: Sequence[Advice]
    """Best settings for each provider and method."""
    operators: Sequence[Operator] = field(default_factory=tuple)
    """Operators of each method, if a profile was requested."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict of values that JSON can represent."""
        return asdict(self)


def measure(
    path: str | os.PathLike[str],
    *,
    methods: Sequence[str] | None = None,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] | None = None,
    providers: Sequence[Provider] | None = None,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    profile: bool = False,
    verify: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Measure a model file.

    Args:
        path: Path of the model file.
        methods: Names of methods. None means gradcam and guided-backprop, as far as the file supports them.
        batches: Batch sizes.
        threads: Maximum numbers of threads of one run. None means one per usable core. For N threads, N callers with
            one thread each are measured too, and combinations in between. On other providers than the CPU, there is
            one caller, and the provider decides the number of threads.
        providers: Names or (name, options) pairs, each measured separately. None means CUDA if it is usable, or else
            the CPU.
        seconds: Time to measure each case in seconds, over all rounds together. At least three runs are measured.
        rounds: Number of rounds into which that time is split. Each round measures all cases of a batch size.
        profile: True to measure also the operators of each method, with the largest batch size.
        verify: True to check the SHA-256 of the model file.
        progress: Function that is called as progress(done, total) with numbers of worker processes.

    Returns:
        The measurements and recommendations.

    Raises:
        ArgumentError: If a number is out of range.
        MethodError: If a method is unknown, or the model file lacks the outputs for it.
        ModelFileError: If the model file cannot be read or is damaged.
        ProviderError: If a provider is not available, or does not start.
    """
    model = ModelFile.read(path, verify)
    names = (FORWARD, *_methods(methods, model))
    sizes = _numbers("batch", batches, MAX_BATCH)
    counts = [usable_cores()] if threads is None else _numbers("threads", threads, most_threads())
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= 3600:
        raise ArgumentError(f"seconds must be a number above 0 and at most 3600, not {brief(seconds)}")
    [round_count] = _numbers("rounds", [rounds], 1000)
    requested = [None] if providers is None else [[provider] for provider in _list(providers)]
    resolved = [(provider, SessionCache(model, provider, 1).providers[0]) for provider in requested]

    sha256 = [model.sha256, model.external_data_sha256]
    tasks = [
        WorkerTask(os.fspath(model.path), provider, size, [], float(seconds), round_count, sha256=sha256)
        for provider, _ in resolved
        for size in sizes
    ]
    provider_names = [name for _, name in resolved for _ in sizes]
    total = len(tasks) + (len(resolved) if profile else 0)
    rows: list[Measurement] = []
    for done, (task, provider_name) in enumerate(zip(tasks, provider_names, strict=True)):
        _report_progress(progress, done, total)
        cases = [BenchCase(name, *layout) for layout in layouts(provider_name, counts) for name in names]
        rows += _measure_cases(replace(task, cases=cases), provider_name)
    operators: list[Operator] = []
    for done, (provider, provider_name) in enumerate(resolved if profile else []):
        _report_progress(progress, len(tasks) + done, total)
        cases = [BenchCase(name, 1, 1) for name in names]
        task = WorkerTask(os.fspath(model.path), provider, max(sizes), cases, float(seconds), round_count, True, sha256)
        operators += _measure_operators(task, provider_name)
    _report_progress(progress, total, total)
    rows = _with_ratios(rows)
    return Report(
        file=str(model.path),
        model=model.metadata.model.name,
        machine=_machine(),
        rows=rows,
        advice=advise(rows),
        operators=operators,
    )


def _methods(names: Sequence[str] | None, model: ModelFile) -> list[str]:
    """Return the requested methods, or the default ones that the file supports, or else the first that it supports."""
    supported = methods.available_methods(model.outputs)
    if names is None:
        return [name for name in METHODS if name in supported] or list(supported[:1])
    return [methods.find_method(name, model.outputs, str(model.path), model.metadata).name for name in _list(names)]


def _numbers(name: str, values: Any, most: int) -> list[int]:
    """Return one or several integers as a list, or raise an ArgumentError if one is out of range."""
    result = _list(values)
    for value in result:
        if not is_integer(value) or not 1 <= value <= most:
            raise ArgumentError(f"{name} must be an integer from 1 to {most}, not {brief(value)}")
    return [int(value) for value in result]


def _list(values: Any) -> list[Any]:
    """Return one or several values as a list without repetitions."""
    return _unique(values if isinstance(values, (list, tuple)) and values else [values])


def _unique(values: Iterable[_T]) -> list[_T]:
    """Remove repetitions. Values are compared, because the options of a provider cannot be hashed."""
    result: list[_T] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result


def layouts(provider: str, threads: Sequence[int]) -> list[tuple[int, int | None]]:
    """Return the combinations of workers and threads to measure.

    Args:
        provider: Full name of the execution provider.
        threads: Numbers of threads.

    Returns:
        Pairs of workers and threads per worker: for N threads, 1 worker with N threads, N workers with 1 thread, and
        powers of two in between.
    """
    if provider != CPU:
        return [(1, None)]
    result: list[tuple[int, int | None]] = []
    for count in threads:
        powers = [2**power for power in range(1, count.bit_length()) if count % 2**power == 0]
        result += [(workers, count // workers) for workers in sorted({1, *powers, count})]
    return _unique(result)


def _report_progress(progress: Callable[[int, int], object] | None, done: int, total: int) -> None:
    """Call `progress` if it is given."""
    if progress is not None:
        progress(done, total)


# Worker processes.


def _measure_cases(task: WorkerTask, provider: str) -> list[Measurement]:
    """Measure the cases of a task. If a case ends the worker process, measure the others again without it."""
    rows: dict[BenchCase, Measurement] = {}
    remaining = list(task.cases)
    while remaining:
        messages, failure = _run_worker(replace(task, cases=remaining))
        for message in messages:
            case = remaining[message["case"]]
            if "error" in message:
                rows[case] = replace(_row(task, provider, case), error=message["error"])
            elif "times" in message:
                rows[case] = _statistics(_row(task, provider, case), message["times"], message["rate"])
        if failure is not None:
            # The failure belongs to the case that was started last, or to all cases if none was started.
            failed = [remaining[message["case"]] for message in messages if "started" in message][-1:] or remaining
            rows = {case: row for case, row in rows.items() if row.error is not None}
            rows.update({case: replace(_row(task, provider, case), error=failure) for case in failed})
        remaining = [case for case in task.cases if case not in rows]
        if failure is None and remaining:
            raise AssertionError(f"the worker did not measure {remaining}")
    return [rows[case] for case in task.cases]


def _row(task: WorkerTask, provider: str, case: BenchCase) -> Measurement:
    """Return the measurement of a case without its times."""
    return Measurement(provider, case.workers, case.threads, task.batch, case.method)


def _statistics(row: Measurement, times: Sequence[float], rate: float) -> Measurement:
    """Return a measurement with percentiles of its times."""
    ordered = sorted(1000 * time for time in times)
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    return replace(row, runs=len(ordered), p50=p50, p90=p90, p99=p99, images_per_second=rate)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return a percentile by the nearest-rank method.

    Args:
        ordered: Values in ascending order.
        percent: Percentile, from 0 to 100.

    Returns:
        The smallest value that at least `percent` per cent of the values do not exceed.
    """
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def _measure_operators(task: WorkerTask, provider: str) -> list[Operator]:
    """Measure the operators of the cases of a task."""
    messages, _ = _run_worker(task)
    return [
        Operator(provider, task.cases[message["case"]].method, task.batch, **operator)
        for message in messages
        for operator in message.get("operators", [])
    ]


def _command() -> list[str]:
    """Return the command that starts a worker process."""
    return [sys.executable, "-m", worker.__name__]


def _run_worker(task: WorkerTask) -> tuple[list[dict[str, Any]], str | None]:
    """Run a worker process, and return its messages and the reason why it failed, or None."""
    # The worker imports from the same places as this process, but not from the current folder.
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            _command(),
            input=json.dumps(asdict(task)).encode(),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            check=False,
        )
        errors.seek(0)
        error_lines = errors.read().decode(errors="replace").strip().splitlines()
    messages = list(_messages(done.stdout))
    if done.returncode == 0:
        return messages, None
    if done.returncode == -9:
        return messages, "killed by the system, probably for lack of memory"
    if done.returncode < 0:
        return messages, f"the process was ended by signal {-done.returncode}"
    return messages, f"the process failed: {error_lines[-1] if error_lines else f'exit status {done.returncode}'}"


def _messages(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the messages in the output of a worker process, whose last line may be incomplete."""
    for line in data.decode(errors="replace").splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and "case" in message:
            yield message


# Evaluation of the measurements.


def _with_ratios(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements with their ratios to the forward pass."""
    forward = {(row.provider, row.workers, row.threads, row.batch): row.p50 for row in rows if row.method == FORWARD}

    def with_ratio(row: Measurement) -> Measurement:
        base = forward.get((row.provider, row.workers, row.threads, row.batch))
        return row if not base or row.p50 is None else replace(row, ratio=row.p50 / base)

    return [with_ratio(row) for row in rows]


def advise(rows: Sequence[Measurement]) -> list[Advice]:
    """Return the best settings for each method on each provider, except for methods that could not be measured."""
    good = [row for row in rows if row.p50 is not None and row.images_per_second is not None]
    result = []
    for provider, method in _unique((row.provider, row.method) for row in good if row.method != FORWARD):
        own = [row for row in good if (row.provider, row.method) == (provider, method)]
        single = [row for row in own if row.workers == 1] or own
        smallest = min(row.batch for row in single)
        lowest_latency = min((row for row in single if row.batch == smallest), key=lambda row: row.p50 or 0)
        best = max(row.images_per_second or 0 for row in own)
        near_best = [row for row in own if (row.images_per_second or 0) >= _NEAR_BEST * best]
        highest_throughput = min(near_best, key=lambda row: (row.batch * row.workers, -(row.images_per_second or 0)))
        result.append(Advice(provider, method, lowest_latency, highest_throughput))
    return result


def _machine() -> dict[str, Any]:
    """Return processor, instruction sets, cores and software of this machine."""
    return {
        "processor": _processor(),
        "cpu_features": cpu_features(),
        "usable_cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "seewhy": __version__,
    }


def _processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
