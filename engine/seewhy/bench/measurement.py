"""Speed of a model file on this machine: its forward pass and its methods, by provider, batch size and threads.

Every batch size of every provider gets a process of its own (`worker.py`), so that memory which runs out there
ends that process and not the benchmark.
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

from seewhy._shared.checks import is_integer
from seewhy._shared.cpu_count import most_threads, usable_cores
from seewhy._shared.text import brief
from seewhy._version import __version__
from seewhy.bench import worker
from seewhy.bench.protocol import FORWARD, BenchCase, WorkerTask
from seewhy.errors import MethodError
from seewhy.methods import registry as methods
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.providers import CPU, Provider
from seewhy.runtime.sessions import SessionCache

__all__ = ["FORWARD", "Advice", "Measurement", "Operator", "Report", "measure"]

BATCHES = (1, 8, 32)
METHODS = ("gradcam", "guided-backprop")
SECONDS, ROUNDS = 2.0, 5
MOST_IMAGES = 1_000_000
"""Largest batch size that is measured, in images."""
# A smaller batch that is nearly as quick leaves more memory and answers sooner.
_NEARLY = 0.97
_T = TypeVar("_T")


@dataclass(frozen=True)
class Measurement:
    """What one way to run costs. Times are of one batch."""

    provider: str
    workers: int
    """How many callers run batches at the same time."""
    threads: int | None
    """Most threads of one run; None where the provider decides."""
    batch: int
    what: str
    """A method, array in and heatmaps out; or `forward`, the same file cut to its logits."""
    runs: int = 0
    p50: float | None = None
    """Milliseconds, as the other two."""
    p90: float | None = None
    p99: float | None = None
    images_per_second: float | None = None
    """Of all workers together."""
    ratio: float | None = None
    """`p50`, divided by that of `forward` run the same way in the same rounds."""
    error: str | None = None
    """Why there are no figures."""


@dataclass(frozen=True)
class Advice:
    """Which way to run a method, as measured."""

    provider: str
    method: str
    quickest: Measurement
    """The shortest time to an answer for a single caller, of the smallest batch size."""
    most: Measurement
    """The most images a second, or nearly so with a smaller batch."""


@dataclass(frozen=True)
class Operator:
    """All operators of one type in one part of the graph, in runs on one thread."""

    provider: str
    what: str
    batch: int
    part: str
    """`forward` where the logits need it, else `backward`; `unknown` where onnxruntime does not say."""
    type: str
    count: int
    """Operators, in one run."""
    milliseconds: float
    """Of one run."""
    share: float
    """Of the time of all operators, 0 to 1."""


@dataclass(frozen=True)
class Report:
    """What `measure` found."""

    file: str
    model: str
    machine: Mapping[str, Any]
    rows: Sequence[Measurement]
    advice: Sequence[Advice]
    operators: Sequence[Operator] = field(default_factory=tuple)

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
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
        path: a file that `seewhy export` wrote.
        methods: their names; None takes gradcam and guided-backprop, as far as the file serves them.
        batches: batch sizes.
        threads: most threads of one run; None is one for each usable core. For each, that many callers of one thread
            are measured too, and what lies between. On other providers than the CPU there is one caller, and
            the provider decides on threads.
        providers: names, or (name, options) pairs, each measured by itself; None takes CUDA if usable, else the CPU.
        seconds: how long each row is timed, in all its rounds; at least three runs are made all the same.
        rounds: into how many turns that time is split. In each round everything of one batch size has its turn.
        profile: also say which operators take the time, for each method and the largest batch size.
        verify: check the file's SHA-256.
        progress: called as progress(done, total) with the number of processes.

    Raises:
        ModelFileError: as `Explainer` raises it.
        MethodError: an unknown method, or one that the file cannot serve; a number that makes no sense.
        ProviderError: a provider is unknown, not installed, or does not start.
    """
    model = ModelFile.read(path, verify)
    whats = (FORWARD, *_methods(methods, model))
    sizes = _numbers("batch", batches, MOST_IMAGES)
    counts = [usable_cores()] if threads is None else _numbers("threads", threads, most_threads())
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= 3600:
        raise MethodError(f"seconds must be a number above 0, at most 3600, not {brief(seconds)}")
    [turns] = _numbers("rounds", [rounds], 1000)
    asked = [None] if providers is None else [[provider] for provider in _list(providers)]
    found = [(provider, SessionCache(model, provider, 1).providers[0]) for provider in asked]

    sha256 = [model.sha256, model.external_data_sha256]
    orders = [
        WorkerTask(os.fspath(model.path), provider, size, [], float(seconds), turns, sha256=sha256)
        for provider, _ in found
        for size in sizes
    ]
    names = [name for _, name in found for _ in sizes]
    total = len(orders) + (len(found) if profile else 0)
    rows: list[Measurement] = []
    for done, (order, name) in enumerate(zip(orders, names, strict=True)):
        _tell(progress, done, total)
        cases = [BenchCase(what, *layout) for layout in layouts(name, counts) for what in whats]
        rows += _measured(replace(order, cases=cases), name)
    operators: list[Operator] = []
    for done, (provider, name) in enumerate(found if profile else []):
        _tell(progress, len(orders) + done, total)
        cases = [BenchCase(what, 1, 1) for what in whats]
        operators += _profiled(
            WorkerTask(os.fspath(model.path), provider, max(sizes), cases, float(seconds), turns, True, sha256), name
        )
    _tell(progress, total, total)
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
    """The methods to measure: those asked for, or what there is of the defaults, or else whatever there is."""
    served = methods.available_methods(model.outputs)
    if names is None:
        return [name for name in METHODS if name in served] or list(served[:1])
    return [methods.find_method(name, model.outputs, str(model.path)).name for name in _list(names)]


def _numbers(name: str, values: Any, most: int) -> list[int]:
    result = _list(values)
    for value in result:
        if not is_integer(value) or not 1 <= value <= most:
            raise MethodError(f"{name} must be an integer from 1 to {most}, not {brief(value)}")
    return [int(value) for value in result]


def _list(values: Any) -> list[Any]:
    """One or several, each once."""
    return _unique(values if isinstance(values, (list, tuple)) and values else [values])


def _unique(values: Iterable[_T]) -> list[_T]:
    """In order; compared, not hashed, since a provider's options cannot be."""
    result: list[_T] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result


def layouts(provider: str, threads: Sequence[int]) -> list[tuple[int, int | None]]:
    """Return pairs of workers and threads: one worker of N threads, N of one, and powers of two between."""
    if provider != CPU:
        return [(1, None)]
    result: list[tuple[int, int | None]] = []
    for count in threads:
        powers = [2**power for power in range(1, count.bit_length()) if count % 2**power == 0]
        result += [(workers, count // workers) for workers in sorted({1, *powers, count})]
    return _unique(result)


def _tell(progress: Callable[[int, int], object] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


# Workers.


def _measured(order: WorkerTask, provider: str) -> list[Measurement]:
    """The rows of one worker; where that dies of a case, the others run again without it."""
    rows: dict[BenchCase, Measurement] = {}
    left = list(order.cases)
    while left:
        answers, reason = _ask(replace(order, cases=left))
        for answer in answers:
            case = left[answer["case"]]
            if "error" in answer:
                rows[case] = replace(_row(order, provider, case), error=answer["error"])
            elif "times" in answer:
                rows[case] = _statistics(_row(order, provider, case), answer["times"], answer["rate"])
        if reason is not None:
            # The last that it began, or where it did not come so far, all.
            begun = [left[answer["case"]] for answer in answers if "begun" in answer][-1:] or left
            rows = {case: row for case, row in rows.items() if row.error is not None}
            rows.update({case: replace(_row(order, provider, case), error=reason) for case in begun})
        left = [case for case in order.cases if case not in rows]
        if reason is None and left:
            raise AssertionError(f"the worker left out {left}")
    return [rows[case] for case in order.cases]


def _row(order: WorkerTask, provider: str, case: BenchCase) -> Measurement:
    return Measurement(provider, case.workers, case.threads, order.batch, case.what)


def _statistics(row: Measurement, times: Sequence[float], rate: float) -> Measurement:
    ordered = sorted(1000 * time for time in times)
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    return replace(row, runs=len(ordered), p50=p50, p90=p90, p99=p99, images_per_second=rate)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest value that `percent` of all do not exceed; with few values, p99 is the largest."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def _profiled(order: WorkerTask, provider: str) -> list[Operator]:
    answers, _ = _ask(order)
    return [
        Operator(provider, order.cases[answer["case"]].what, order.batch, **operator)
        for answer in answers
        for operator in answer.get("operators", [])
    ]


def _command() -> list[str]:
    return [sys.executable, "-m", worker.__name__]


def _ask(order: WorkerTask) -> tuple[list[dict[str, Any]], str | None]:
    """What a worker answers, line by line, and why it died, if it did."""
    # It finds what this process found, and nothing in the folder that this one happens to run in.
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            _command(),
            input=json.dumps(asdict(order)).encode(),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            check=False,
        )
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    answers = list(_answers(done.stdout))
    if done.returncode == 0:
        return answers, None
    if done.returncode == -9:
        return answers, "killed by the system, as it does where memory runs out"
    if done.returncode < 0:
        return answers, f"the process ended by signal {-done.returncode}"
    return answers, f"the process failed: {said[-1] if said else f'exit status {done.returncode}'}"


def _answers(data: bytes) -> Iterator[dict[str, Any]]:
    """Lines of JSON; the last may be cut off."""
    for line in data.decode(errors="replace").splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "case" in answer:
            yield answer


# What the figures say.


def _with_ratios(rows: Sequence[Measurement]) -> list[Measurement]:
    forward = {(row.provider, row.workers, row.threads, row.batch): row.p50 for row in rows if row.what == FORWARD}

    def with_ratio(row: Measurement) -> Measurement:
        base = forward.get((row.provider, row.workers, row.threads, row.batch))
        return row if not base or row.p50 is None else replace(row, ratio=row.p50 / base)

    return [with_ratio(row) for row in rows]


def advise(rows: Sequence[Measurement]) -> list[Advice]:
    """Return the best ways to run each method on each provider, as far as it could be measured."""
    good = [row for row in rows if row.p50 is not None and row.images_per_second is not None]
    result = []
    for provider, what in _unique((row.provider, row.what) for row in good if row.what != FORWARD):
        own = [row for row in good if (row.provider, row.what) == (provider, what)]
        alone = [row for row in own if row.workers == 1] or own
        smallest = min(row.batch for row in alone)
        quickest = min((row for row in alone if row.batch == smallest), key=lambda row: row.p50 or 0)
        best = max(row.images_per_second or 0 for row in own)
        enough = [row for row in own if (row.images_per_second or 0) >= _NEARLY * best]
        most = min(enough, key=lambda row: (row.batch * row.workers, -(row.images_per_second or 0)))
        result.append(Advice(provider, what, quickest, most))
    return result


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "usable_cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "seewhy": __version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
