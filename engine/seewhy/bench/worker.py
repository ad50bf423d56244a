"""Worker process of `seewhy bench`, which measures one provider and one batch size.

`measurement.py` starts it, writes a task to its standard input and reads messages from its standard output, one JSON
object per line. All cases are measured in each round, so that load on the machine affects all of them equally. Thread
pools spin for a while after a run and slow down the next one. Therefore each measurement begins with a pause and a run
that does not count.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from seewhy.bench import operator_profile
from seewhy.bench.protocol import FORWARD, BenchCase, WorkerTask
from seewhy.contract.constants import IMAGES, LOGITS
from seewhy.errors import SeewhyError
from seewhy.explainer.explainer import Explainer
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import SessionCache

PAUSE = 0.15
"""Pause before each measurement of a case, in seconds."""
_MIN_RUNS = 3
# A case whose runs take at least this many seconds needs neither a pause nor a run to warm up.
_LONG_RUN = 1.0


@dataclass
class TimedCase:
    """Case with its measured times."""

    number: int
    """Index of the case in the task."""
    workers: int
    """Number of threads that run batches in parallel."""
    run: Callable[[], object]
    """Function that runs one batch."""
    times: list[float] = field(default_factory=list)
    """Time of each run, in seconds."""
    busy: float = 0.0
    """Total time of the measurements in seconds, each from the first worker's start to the last one's end."""
    error: str | None = None
    """Message of an error, or None."""


def run_case(case: TimedCase, seconds: float) -> None:
    """Measure a case for a number of seconds, after a pause and a run that does not count.

    Args:
        case: The case. The times of its runs are added.
        seconds: Time to measure, in seconds. Each worker makes at least one run.
    """
    if not case.times or case.times[-1] < _LONG_RUN:
        time.sleep(PAUSE)
        case.run()
    if case.workers == 1:
        _repeat(case, seconds)
        return
    barrier = threading.Barrier(case.workers)
    errors: list[Exception] = []
    spans: list[tuple[float, float]] = []

    def work() -> None:
        barrier.wait()
        own = TimedCase(case.number, 1, case.run)
        start = time.perf_counter()
        try:
            _repeat(own, seconds)
        except Exception as error:  # noqa: BLE001  raised again by the calling thread
            errors.append(error)
        spans.append((start, time.perf_counter()))
        case.times.extend(own.times)

    workers = [threading.Thread(target=work) for _ in range(case.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    case.busy += max(end for _, end in spans) - min(start for start, _ in spans)


def _repeat(case: TimedCase, seconds: float) -> None:
    """Run a case repeatedly on this thread."""
    begun = time.perf_counter()
    while True:
        start = time.perf_counter()
        case.run()
        end = time.perf_counter()
        case.times.append(end - start)
        if end - begun >= seconds:
            case.busy += end - begun
            return


def measure(task: WorkerTask) -> None:
    """Measure all cases of a task, and send their times."""
    images, make = _case_runners(task)
    cases = [TimedCase(number, case.workers, make(case)) for number, case in enumerate(task.cases)]
    for case in cases:  # run each case once first, to find failing cases before spending time on measurements
        _guarded(case, case.run)
    for round in range(max(task.rounds, _MIN_RUNS)):
        for case in cases:
            spent = case.busy >= task.seconds or round >= task.rounds
            if case.error is None and not (spent and len(case.times) >= _MIN_RUNS * case.workers):
                _guarded(case, partial(run_case, case, task.seconds / task.rounds))
    for case in cases:
        if case.error is None:
            rate = len(case.times) * len(images) / case.busy
            send({"case": case.number, "times": case.times, "rate": rate})


def _guarded(case: TimedCase, run: Callable[[], object]) -> None:
    """Run a case, and send errors. Send its start first, because a killed process can no longer send anything."""
    if case.error is not None:
        return
    send({"case": case.number, "started": True})
    try:
        run()
    except (SeewhyError, MemoryError) as error:
        case.error = _reason(error)
        send({"case": case.number, "error": case.error})


def _reason(error: Exception) -> str:
    """Return the message of an error as one line."""
    text = " ".join(str(error).split())
    return f"not enough memory: {text}" if isinstance(error, MemoryError) else text


def _case_runners(task: WorkerTask) -> tuple[Any, Callable[[BenchCase], Callable[[], object]]]:
    """Return the images, and a function that returns for a case the function that runs one batch.

    Cases with the same number of threads share sessions.
    """
    model = ModelFile.read(task.path, verify=False)
    task.check(model)
    data = model.metadata
    try:
        images = np.empty((task.batch, data.channels, *data.image_size), np.float32)
    except (MemoryError, ValueError) as error:
        for number in range(len(task.cases)):
            send({"case": number, "error": f"not enough memory for {task.batch} images: {error}"})
        raise SystemExit(0) from None
    random = np.random.default_rng(0)
    for image in images:
        image[...] = random.standard_normal(image.shape, np.float32)
    explainers: dict[int | None, Explainer] = {}
    forwards: dict[int | None, onnxruntime.InferenceSession] = {}

    def make(case: BenchCase) -> Callable[[], object]:
        if case.method == FORWARD:
            if case.threads not in forwards:
                sessions = SessionCache(model, task.providers, case.threads)
                forwards[case.threads] = sessions.create_session(frozenset({LOGITS}), lambda options: None)
            forward = forwards[case.threads]
            return lambda: forward.run(None, {IMAGES: images})  # the whole batch, not split into sub-batches
        if case.threads not in explainers:
            explainers[case.threads] = Explainer(task.path, task.providers, case.threads, verify=False)
            task.check(explainers[case.threads])
        explainer = explainers[case.threads]
        return lambda: explainer.explain(images, case.method, batch_size=task.batch).heatmaps

    return images, make


def send(message: dict[str, Any]) -> None:
    """Send a message to the process that started this one."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read a task from standard input and measure it."""
    fields = json.loads(sys.stdin.read())
    fields["cases"] = [BenchCase(**case) for case in fields["cases"]]
    if fields["providers"] is not None:
        fields["providers"] = [one if isinstance(one, str) else tuple(one) for one in fields["providers"]]
    task = WorkerTask(**fields)
    if task.profile:
        operator_profile.measure(task, send)
    else:
        measure(task)


if __name__ == "__main__":
    main()
