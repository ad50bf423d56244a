"""Run one tool in the tool's own environment: JSON lines in, JSON lines out.

    python run_tool.py MODULE:JOB

`load` makes the job ready. `first` runs it once, unmeasured, and keeps its answer. `run` runs it once unmeasured, where
asked to, and then `count` times with the clock on. Nothing else happens between two lines, so that an idle worker is
idle.
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
from tool_job import Job, Task

warnings.simplefilter("ignore")


class Worker:
    def __init__(self, make: Callable[[Task], Job]) -> None:
        self._make = make
        self._job: Job | None = None

    def load(self, task: dict[str, Any]) -> dict[str, Any]:
        self._job = None
        gc.collect()
        self._job = self._make(Task(**{**task, "model": Path(task["model"])}))
        return {}

    def first(self, answer: str) -> dict[str, Any]:
        job = self._loaded()
        note = job.note
        if job.settle is not None:
            job.run, note = job.settle()
            job.settle = None  # with it go the ways that were not chosen
        start = time.perf_counter()
        value = job.run()
        seconds = time.perf_counter() - start
        np.save(answer, np.asarray(job.answer(value)))
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
        return {"times": times}

    def _loaded(self) -> Job:
        if self._job is None:
            raise RuntimeError("no job was loaded")
        return self._job


def main() -> None:
    # What libraries print must not get between the lines.
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
    except Exception as error:  # noqa: BLE001 -- the tool's own, whatever it is
        traceback.print_exc()
        lines.write(json.dumps({"error": _brief(error)}) + "\n")
        return
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = commands[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001 -- the tool's own; the next command may work
            traceback.print_exc()
            answer = {"error": _brief(error)}
        lines.write(json.dumps(answer) + "\n")


def _brief(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


if __name__ == "__main__":
    main()
