"""Measure how sessions should use cores: threads per session, callers, pinning, spinning, and memory settings.

    python benchmarks/micro/session_threads.py MODEL.onnx [--method gradcam] [--batch 1 --batch 8] [--cores 2]
        [--rounds 7] [--json]
    python benchmarks/micro/session_threads.py MODEL.onnx --memory [--runs 200] [--largest 32] [--json]

The first form measures images per second and CPU time per image. These configurations take turns in rounds:

- `pinned`: onnxruntime's default, one thread per core of the machine, pinned to the core
- `free`: the same number of threads, set explicitly, so that they are not pinned
- `free, no spin`: threads that do not spin while they wait for work
- `free, short`: threads that spin for at most 50 microseconds
- `free, stop`: threads that spin during a run and stop at its end
- `kernels beside`: as `free`, with the engine's kernels between the runs (heatmaps of the outputs)
- `kernels beside, no spin`, `..., short`, `..., stop`: the same with the settings above
- `N callers`: one session of one thread, shared by N callers, one per core
- `N sessions`: N sessions of one thread each, one per core

`outside` is the median number of cores that other processes used during a turn. With `--quiet 0.2`, only turns with a
smaller number count.

The second form runs batches of random sizes, with each setting in its own process. It reports the resident memory
during the runs and the CPU time per image on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from seewhy import _core
from seewhy._shared.cpu_count import usable_cores
from seewhy.contract import constants as contract
from seewhy.methods.registry import METHODS
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.model_file import ModelFile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.child_processes import json_of_script
from benchmarks.shared.forward_pass import cpu_session
from benchmarks.shared.machine_facts import Clock, memory_of_process
from benchmarks.shared.timing_in_turns import REST, in_turns

CLOCK = Clock()


@dataclass(frozen=True)
class Configuration:
    """Configuration of sessions and callers."""

    threads: int
    """Number of threads per session; 0 means onnxruntime's default."""
    spin: str = "on"
    """Key of SPIN."""
    callers: int = 1
    """Number of threads that call sessions."""
    shared: bool = True
    """True if all callers share one session."""
    kernels: bool = False
    """True to run the engine's kernels after each session run."""


def configurations(cores: int) -> dict[str, Configuration]:
    return {
        "pinned": Configuration(0),
        "free": Configuration(cores),
        "free, no spin": Configuration(cores, "off"),
        "free, short": Configuration(cores, "short"),
        "free, stop": Configuration(cores, "stop"),
        "kernels beside": Configuration(cores, kernels=True),
        "kernels beside, no spin": Configuration(cores, "off", kernels=True),
        "kernels beside, short": Configuration(cores, "short", kernels=True),
        "kernels beside, stop": Configuration(cores, "stop", kernels=True),
        f"{cores} callers": Configuration(1, callers=cores),
        f"{cores} sessions": Configuration(1, callers=cores, shared=False),
    }


SPIN: dict[str, dict[str, str]] = {
    "on": {},
    "off": {"session.intra_op.allow_spinning": "0"},
    "short": {"session.intra_op.spin_duration_us": "50"},
    "stop": {"session.force_spinning_stop": "1"},
}

MEMORY: dict[str, dict[str, Any]] = {
    "default": {},
    "no pattern": {"enable_mem_pattern": False},
    "shrink": {"shrink": True},
    "no pattern, shrink": {"enable_mem_pattern": False, "shrink": True},
    "no arena": {"enable_cpu_mem_arena": False},
    "no arena, no pattern": {"enable_cpu_mem_arena": False, "enable_mem_pattern": False},
}


def feeds(model: ModelFile, graph: onnxruntime.InferenceSession, batch: int) -> dict[str, Any]:
    data = model.metadata
    inputs = {
        contract.IMAGES: np.random.default_rng(0).standard_normal((batch, data.channels, *data.image_size), np.float32),
        contract.TARGETS: np.full(batch, contract.PREDICTED, np.int64),
    }
    return {value.name: inputs[value.name] for value in graph.get_inputs()}


def make_caller(
    model: ModelFile, session: onnxruntime.InferenceSession, batch: int, kernels: bool
) -> Callable[[], object]:
    inputs = feeds(model, session, batch)
    size = model.metadata.image_size

    def run() -> None:
        values = session.run(None, inputs)
        if kernels:
            maps = [value for value in values if value.ndim == 4]
            heat = _core.max_abs(maps[0]) if maps[0].shape[2:] == tuple(size) else _core.channel_means(maps[0])
            if heat.ndim == 2:
                heat = _core.upsample(_core.weighted_sum(maps[0], heat), *size)
            _core.minmax(heat)

    return run


def measure(calls: list[Callable[[], object]], seconds: float) -> tuple[int, float, float, float]:
    """Return (number of batches, elapsed seconds, CPU seconds, cores used by other processes)."""
    time.sleep(REST)
    calls[0]()
    counts = [0] * len(calls)
    start, cpu_start, machine_start = time.perf_counter(), time.process_time(), CLOCK.machine()

    def work(number: int) -> None:
        while True:
            calls[number]()
            counts[number] += 1
            if time.perf_counter() - start >= seconds:
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(1, len(calls))]
    for worker in workers:
        worker.start()
    work(0)
    for worker in workers:
        worker.join()
    clock, own = time.perf_counter() - start, time.process_time() - cpu_start
    return sum(counts), clock, own, max(CLOCK.machine() - machine_start - own, 0) / clock


def measure_threads(
    model: ModelFile, method: str, batches: list[int], cores: int, rounds: int, seconds: float, quiet: float
) -> list[dict]:
    graph = prune(model.proto, [contract.LOGITS, *METHODS[method].outputs]).SerializeToString()
    rows = []
    for batch in batches:
        calls = {}
        for name, configuration in configurations(cores).items():
            sessions = [
                cpu_session(graph, configuration.threads, SPIN[configuration.spin])
                for _ in range(1 if configuration.shared else configuration.callers)
            ]
            calls[name] = [
                make_caller(model, sessions[i % len(sessions)], batch, configuration.kernels)
                for i in range(configuration.callers)
            ]
        measured = {name: partial(measure, callers, seconds) for name, callers in calls.items()}
        for name, turns in in_turns(measured, rounds).items():
            figures = [
                (count * batch / clock, 1000 * processor / (count * batch), outside)
                for count, clock, processor, outside in turns
                if outside < quiet
            ]
            rates, costs, outsides = zip(*figures, strict=True) if figures else ([math.nan],) * 3
            rows.append(
                {
                    "batch": batch,
                    "way": name,
                    "turns": len(figures),
                    "images_per_second": round(statistics.median(rates), 2),
                    "best": round(max(rates), 2),
                    "core_ms_per_image": round(statistics.median(costs), 2),
                    "outside": round(statistics.median(outsides), 2),
                }
            )
    return rows


def measure_memory(path: str, method: str, setting: str, runs: int, largest: int) -> dict[str, Any]:
    """Measure the memory of one setting in this process."""
    model = ModelFile.read(path, verify=False)
    changes = dict(MEMORY[setting])
    options = onnxruntime.RunOptions()
    if changes.pop("shrink", False):
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    graph = prune(model.proto, [contract.LOGITS, *METHODS[method].outputs]).SerializeToString()
    session = cpu_session(graph, 1, **changes)
    inputs = feeds(model, session, largest)
    sizes = np.random.default_rng(1).integers(1, largest + 1, runs)
    before = resident()
    session.run(None, inputs, options)
    after_largest = resident()
    during_runs = []
    cpu_start = time.process_time()
    for number, size in enumerate(sizes, 1):
        session.run(None, {name: value[:size] for name, value in inputs.items()}, options)
        if number % max(runs // 5, 1) == 0:
            during_runs.append(resident())
    cpu_seconds = time.process_time() - cpu_start
    return {
        "setting": setting,
        "loaded_mib": before,
        "after_largest_mib": after_largest,
        "along_mib": during_runs,
        "core_ms_per_image": round(1000 * cpu_seconds / int(sizes.sum()), 2),
    }


def resident() -> int:
    """Return the resident memory of this process in MiB."""
    return memory_of_process()["VmRSS"] // 2**20


def table(rows: list[dict]) -> str:
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model file")
    parser.add_argument("--method", default="gradcam", choices=[m.name for m in METHODS.values() if not m.multi_pass])
    parser.add_argument("--batch", type=int, action="append", help="batch size; repeatable (default: 1 and 8)")
    parser.add_argument("--cores", type=int, default=usable_cores(), help="number of cores (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default: 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per configuration and round (default: 1)")
    parser.add_argument(
        "--quiet", type=float, default=math.inf, help="ignore turns in which other processes used more cores than this"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory settings instead of threads")
    parser.add_argument("--runs", type=int, default=200, help="number of runs with --memory (default: 200)")
    parser.add_argument("--largest", type=int, default=32, help="largest batch size with --memory (default: 32)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--setting", choices=list(MEMORY), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.setting is not None:
        print(json.dumps(measure_memory(options.model, options.method, options.setting, options.runs, options.largest)))
        return
    model = ModelFile.read(options.model)
    if options.memory:
        rows = [json_of_script(__file__, *sys.argv[1:], "--setting", setting) for setting in MEMORY]
    else:
        rows = measure_threads(
            model,
            options.method,
            options.batch or [1, 8],
            options.cores,
            options.rounds,
            options.seconds,
            options.quiet,
        )
    facts = {
        "model": model.metadata.model.name,
        "method": options.method,
        "usable_cores": usable_cores(),
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    print(json.dumps(facts, indent=2) if options.json else f"{facts['model']}, {options.method}\n{table(rows)}")


if __name__ == "__main__":
    main()
