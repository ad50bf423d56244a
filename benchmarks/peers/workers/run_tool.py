"""Run one tool in its own environment, controlled by JSON lines on standard input.

    python run_tool.py MODULE:JOB

The commands are:

- `load`: create the job.
- `first`: run the job once, unmeasured, and store its result.
- `run`: run the job once unmeasured, if `warm` is set, and then `count` times with the clock on.

Each command has one JSON line as its reply on standard output. Between commands the worker uses no CPU time.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peak_memory
from tool_job import Job, Task

warnings.simplefilter("ignore")


class Worker:
    """Commands of the worker for one job."""

    def __init__(self, make: Callable[[Task], Job]) -> None:
        self._make = make
        self._job: Job | None = None

    def load(self, task: dict[str, Any]) -> dict[str, Any]:
        self._job = None
        gc.collect()
        self._job = self._make(Task(**{**task, "model": Path(task["model"])}))
        return {}

    def first(self, result: str) -> dict[str, Any]:
        job = self._loaded()
        note = job.note
        if job.choose is not None:
            job.run, note = job.choose()
            job.choose = None  # free the variants that were not chosen
            gc.collect()
        peak_memory.restart()
        start = time.perf_counter()
        value = job.run()
        seconds = time.perf_counter() - start
        np.save(result, np.asarray(job.to_array(value)))
        return {"seconds": seconds, "note": note}

    def run(self, count: int, warm: bool) -> dict[str, Any]:
        job = self._loaded()
        if warm:
            (job.warm or job.run)()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            value = job.run()
            times.append(time.perf_counter() - start)
            del value
        return {"times": times, "peak_bytes": peak_memory.peak()}

    def _loaded(self) -> Job:
        if self._job is None:
            raise RuntimeError("no job was loaded")
        return self._job


def main() -> None:
    # Redirect the output of libraries, so that it does not mix with the replies.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    commands: dict[str, Callable[..., dict[str, Any]]] = {}
    try:
        if importlib.util.find_spec("torch"):
            import torch_models

            torch_models.import_torchvision()
        worker = Worker(getattr(importlib.import_module(module), name))
        commands = {"load": worker.load, "first": worker.first, "run": worker.run}
        lines.write(json.dumps({"ready": True}) + "\n")
    except Exception as error:  # noqa: BLE001 -- the tool may raise anything
        traceback.print_exc()
        lines.write(json.dumps({"error": _brief(error)}) + "\n")
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = commands[request.pop("command")](**request)
        except Exception as error:  # noqa: BLE001 -- the tool may raise anything; the next command may work
            traceback.print_exc()
            reply = {"error": _brief(error)}
        lines.write(json.dumps(reply) + "\n")


def _brief(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


if __name__ == "__main__":
    main()
