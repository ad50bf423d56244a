"""The process that `measurement.py` starts for one provider and one batch size: an order on standard input, lines out.

Everything is measured in turns, round after round, so that a busy machine hits all alike. Thread pools spin for a while
after a run and slow down what comes next, so each turn begins with a rest and one run that is not counted.
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

REST = 0.15
"""Pause before each turn, in seconds."""
_FEWEST = 3
# A run of so many seconds needs no other one to warm up, and no rest to be measured after.
_LONG = 1.0


@dataclass
class Timed:
    """A case, and what is known of it."""

    number: int
    workers: int
    run: Callable[[], object]
    times: list[float] = field(default_factory=list)
    busy: float = 0.0
    """Seconds in which its workers ran, from the first one's start to the last one's end."""
    error: str | None = None


def turn(case: Timed, seconds: float) -> None:
    """Run `case` for so long: a rest, a run that does not count, and at least one by each worker that does."""
    if not case.times or case.times[-1] < _LONG:
        time.sleep(REST)
        case.run()
    if case.workers == 1:
        _repeat(case, seconds)
        return
    barrier = threading.Barrier(case.workers)
    errors: list[Exception] = []
    spans: list[tuple[float, float]] = []

    def work() -> None:
        barrier.wait()
        own = Timed(case.number, 1, case.run)
        start = time.perf_counter()
        try:
            _repeat(own, seconds)
        except Exception as error:  # noqa: BLE001  raised again by the thread that asked
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


def _repeat(case: Timed, seconds: float) -> None:
    begun = time.perf_counter()
    while True:
        start = time.perf_counter()
        case.run()
        end = time.perf_counter()
        case.times.append(end - start)
        if end - begun >= seconds:
            case.busy += end - begun
            return


def measure(order: WorkerTask) -> None:
    """Run every case in turns and answer with their times."""
    images, make = _runs(order)
    cases = [Timed(number, case.workers, make(case)) for number, case in enumerate(order.cases)]
    for case in cases:  # first everything once, so that what cannot run is found before time is spent
        _guarded(case, case.run)
    for round in range(max(order.rounds, _FEWEST)):
        for case in cases:
            spent = case.busy >= order.seconds or round >= order.rounds
            if case.error is None and not (spent and len(case.times) >= _FEWEST * case.workers):
                _guarded(case, partial(turn, case, order.seconds / order.rounds))
    for case in cases:
        if case.error is None:
            rate = len(case.times) * len(images) / case.busy
            say({"case": case.number, "times": case.times, "rate": rate})


def _guarded(case: Timed, run: Callable[[], object]) -> None:
    """Run, and say before it that this is what runs: nothing can be said after a process is killed."""
    if case.error is not None:
        return
    say({"case": case.number, "begun": True})
    try:
        run()
    except (SeewhyError, MemoryError) as error:
        case.error = _reason(error)
        say({"case": case.number, "error": case.error})


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"not enough memory: {text}" if isinstance(error, MemoryError) else text


def _runs(order: WorkerTask) -> tuple[Any, Callable[[BenchCase], Callable[[], object]]]:
    """The images, and what makes a case a function that runs one batch of them. Cases of one kind share sessions."""
    model = ModelFile.read(order.path, verify=False)
    order.check(model)
    data = model.metadata
    try:
        images = np.empty((order.batch, data.channels, *data.image_size), np.float32)
    except (MemoryError, ValueError) as error:
        for number in range(len(order.cases)):
            say({"case": number, "error": f"not enough memory for {order.batch} images: {error}"})
        raise SystemExit(0) from None
    random = np.random.default_rng(0)
    for image in images:
        image[...] = random.standard_normal(image.shape, np.float32)
    explainers: dict[int | None, Explainer] = {}
    forwards: dict[int | None, onnxruntime.InferenceSession] = {}

    def make(case: BenchCase) -> Callable[[], object]:
        if case.what == FORWARD:
            if case.threads not in forwards:
                sessions = SessionCache(model, order.providers, case.threads)
                forwards[case.threads] = sessions.create_session(frozenset({LOGITS}), lambda options: None)
            forward = forwards[case.threads]
            return lambda: forward.run(None, {IMAGES: images})  # whole, not in pieces
        if case.threads not in explainers:
            explainers[case.threads] = Explainer(order.path, order.providers, case.threads, verify=False)
            order.check(explainers[case.threads])
        explainer = explainers[case.threads]
        return lambda: explainer.explain(images, case.what, batch_size=order.batch).heatmaps

    return images, make


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    order = json.loads(sys.stdin.read())
    order["cases"] = [BenchCase(**case) for case in order["cases"]]
    if order["providers"] is not None:
        order["providers"] = [one if isinstance(one, str) else tuple(one) for one in order["providers"]]
    made = WorkerTask(**order)
    if made.profile:
        operator_profile.measure(made, say)
    else:
        measure(made)


if __name__ == "__main__":
    main()
