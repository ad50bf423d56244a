"""Measure the cold start of each tool: seconds to the first heatmap, peak memory, and installed size."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.tool_environments import Environments
from benchmarks.peers.worker_process import WORKERS, environment
from benchmarks.shared import round_statistics
from benchmarks.shared.child_processes import last_line
from benchmarks.shared.timing_in_turns import REST

HEATMAP, LOGITS = [224, 224], [1, 1000]
TOOLS = {
    "onnxruntime forward": ("seewhy", "forward", LOGITS),
    "SeeWhy": ("seewhy", "seewhy", HEATMAP),
    "torch-cam": ("torchcam", "torchcam", HEATMAP),
    "Captum": ("captum", "captum", HEATMAP),
    "pytorch-grad-cam": ("grad-cam", "grad-cam", HEATMAP),
    "openvino_xai Recipro-CAM": ("openvino_xai", "openvino_xai", HEATMAP),
}
"""Tool -> its environment, its function in workers/first_heatmap.py, and the shape of the result."""
OURS = "SeeWhy"
MODELS = ("resnet50", "mobilenet_v2")
SECONDS = 300


def measure(environments: Environments, model: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Start each tool once to fill the file cache, then measure new processes in rounds, and return the record."""
    image = str(next((model.parent / "photographs").iterdir()))
    failures: dict[str, str] = {}
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    peaks: dict[str, list[int]] = {name: [] for name in TOOLS}
    for turn in range(-1, rounds):
        for name in round_statistics.order(list(TOOLS), max(turn, 0)):
            if name in failures:
                continue
            time.sleep(REST)
            tool, function, shape = TOOLS[name]
            command = [
                str(environments.python(tool)),
                str(WORKERS / "first_heatmap.py"),
                function,
                str(model),
                image,
                str(threads),
            ]
            outcome = _start(command, threads, shape)
            if isinstance(outcome, str):
                failures[name] = outcome
            elif turn >= 0:
                seconds[name].append(outcome[0])
                peaks[name].append(outcome[1])
    return {"rounds": rounds, "rivals": {name: _record(name, environments, failures, seconds, peaks) for name in TOOLS}}


def _start(command: list[str], threads: int, shape: list[int]) -> tuple[float, int] | str:
    """Return (seconds, peak memory in bytes) of a new process, or the reason of its failure.

    The time ends with the line that the process prints, before the interpreter shuts down.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment(threads), cwd=WORKERS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = ""
        for line in process.stdout:
            if line.startswith("{"):
                break
        elapsed = time.perf_counter() - start
        try:
            _, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"did not end within {SECONDS} s"
    if process.returncode or not line.startswith("{"):
        return f"exit status {process.returncode}: {last_line(errors)}"[:300]
    output = json.loads(line)
    if output["shape"] != shape:
        return f"a result of {output['shape']} instead of {shape}"
    return elapsed, output["peak"]


def _record(
    name: str,
    environments: Environments,
    failures: dict[str, str],
    seconds: dict[str, list[float]],
    peaks: dict[str, list[int]],
) -> dict[str, Any]:
    environment_name = TOOLS[name][0]
    record: dict[str, Any] = {"environment": environment_name}
    if name in failures:
        return {**record, "failed": failures[name]}
    record["ms"] = {key: 1e3 * value for key, value in round_statistics.summary(seconds[name]).items()}
    record["rounds_ms"] = [round(1e3 * value, 3) for value in seconds[name]]
    record["peak_bytes"] = int(statistics.median(peaks[name]))
    record["installed_bytes"] = environments.size(environment_name)
    if name != OURS and OURS not in failures:
        record["to_ours"] = round_statistics.ratio(seconds[name], seconds[OURS])
    return record
