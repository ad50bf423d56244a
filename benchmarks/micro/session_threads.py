"""How should a machine's cores be split? One session of many threads, many callers, pinned threads, spinning threads.

    python benchmarks/micro/session_threads.py MODEL.onnx [--method gradcam] [--batch 1 --batch 8] [--cores 2]
        [--rounds 7] [--json]
    python benchmarks/micro/session_threads.py MODEL.onnx --memory [--runs 200] [--largest 32] [--json]

The first form measures images a second and processor time per image of these ways, in turns, round after round.
`outside` is how many cores were busy with other processes meanwhile, in the median; with `--quiet 0.2` only turns count
that had less than that.

- `pinned`: onnxruntime's own default: a thread for each core of the machine, nailed to it
- `free`: the same number of threads, said explicitly, so that none is nailed
- `free, no spin`: these do not spin when they wait for work
- `free, short`: these spin for 50 microseconds at most
- `free, stop`: these spin during a run, and stop when it ends
- `kernels beside`: one call after the other of `free`, with the engine's own kernels between (heatmaps of the outputs)
- `kernels beside, no spin`, `..., short`, `..., stop`
- `N callers`: a session of one thread, shared by as many callers as there are cores
- `N sessions`: as many sessions of one thread each as there are cores

The second form runs batches of random sizes, each setting in a process of its own, and reports the resident memory
along the way and the processor time per image on one thread.
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
class Way:
    """How sessions are made and called."""

    threads: int
    """0 is onnxruntime's default."""
    spin: str = "on"
    callers: int = 1
    shared: bool = True
    kernels: bool = False


def ways(cores: int) -> dict[str, Way]:
    return {
        "pinned": Way(0),
        "free": Way(cores),
        "free, no spin": Way(cores, "off"),
        "free, short": Way(cores, "short"),
        "free, stop": Way(cores, "stop"),
        "kernels beside": Way(cores, kernels=True),
        "kernels beside, no spin": Way(cores, "off", kernels=True),
        "kernels beside, short": Way(cores, "short", kernels=True),
        "kernels beside, stop": Way(cores, "stop", kernels=True),
        f"{cores} callers": Way(1, callers=cores),
        f"{cores} sessions": Way(1, callers=cores, shared=False),
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
    given = {
        contract.IMAGES: np.random.default_rng(0).standard_normal((batch, data.channels, *data.image_size), np.float32),
        contract.TARGETS: np.full(batch, contract.PREDICTED, np.int64),
    }
    return {value.name: given[value.name] for value in graph.get_inputs()}


def caller(model: ModelFile, made: onnxruntime.InferenceSession, batch: int, kernels: bool) -> Callable[[], object]:
    given = feeds(model, made, batch)
    size = model.metadata.image_size

    def run() -> None:
        values = made.run(None, given)
        if kernels:
            maps = [value for value in values if value.ndim == 4]
            heat = _core.max_abs(maps[0]) if maps[0].shape[2:] == tuple(size) else _core.channel_means(maps[0])
            if heat.ndim == 2:
                heat = _core.upsample(_core.weighted_sum(maps[0], heat), *size)
            _core.minmax(heat)

    return run


def measure(calls: list[Callable[[], object]], seconds: float) -> tuple[int, float, float, float]:
    """Batches run, seconds on the clock, seconds of processor time, cores that others kept busy."""
    time.sleep(REST)
    calls[0]()
    counts = [0] * len(calls)
    begun, spent, all_spent = time.perf_counter(), time.process_time(), CLOCK.machine()

    def work(number: int) -> None:
        while True:
            calls[number]()
            counts[number] += 1
            if time.perf_counter() - begun >= seconds:
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(1, len(calls))]
    for worker in workers:
        worker.start()
    work(0)
    for worker in workers:
        worker.join()
    clock, own = time.perf_counter() - begun, time.process_time() - spent
    return sum(counts), clock, own, max(CLOCK.machine() - all_spent - own, 0) / clock


def split(
    model: ModelFile, method: str, batches: list[int], cores: int, rounds: int, seconds: float, quiet: float
) -> list[dict]:
    graph = prune(model.proto, [contract.LOGITS, *METHODS[method].outputs]).SerializeToString()
    rows = []
    for batch in batches:
        calls = {}
        for name, way in ways(cores).items():
            made = [cpu_session(graph, way.threads, SPIN[way.spin]) for _ in range(1 if way.shared else way.callers)]
            calls[name] = [caller(model, made[i % len(made)], batch, way.kernels) for i in range(way.callers)]
        measured = {name: partial(measure, one, seconds) for name, one in calls.items()}
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


def remember(path: str, method: str, setting: str, runs: int, largest: int) -> dict[str, Any]:
    """Memory of one setting, in this process."""
    model = ModelFile.read(path, verify=False)
    changes = dict(MEMORY[setting])
    options = onnxruntime.RunOptions()
    if changes.pop("shrink", False):
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    graph = prune(model.proto, [contract.LOGITS, *METHODS[method].outputs]).SerializeToString()
    made = cpu_session(graph, 1, **changes)
    given = feeds(model, made, largest)
    sizes = np.random.default_rng(1).integers(1, largest + 1, runs)
    before = resident()
    made.run(None, given, options)
    once = resident()
    along = []
    spent = time.process_time()
    for number, size in enumerate(sizes, 1):
        made.run(None, {name: value[:size] for name, value in given.items()}, options)
        if number % max(runs // 5, 1) == 0:
            along.append(resident())
    spent = time.process_time() - spent
    return {
        "setting": setting,
        "loaded_mib": before,
        "after_largest_mib": once,
        "along_mib": along,
        "core_ms_per_image": round(1000 * spent / int(sizes.sum()), 2),
    }


def resident() -> int:
    """Return the MiB of memory that this process has resident."""
    return memory_of_process()["VmRSS"] // 2**20


def table(rows: list[dict]) -> str:
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--method", default="gradcam", choices=[m.name for m in METHODS.values() if not m.multi_pass])
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--cores", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each round")
    parser.add_argument("--quiet", type=float, default=math.inf, help="cores that others may keep busy in a turn")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--largest", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--setting", choices=list(MEMORY), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.setting is not None:
        print(json.dumps(remember(chosen.model, chosen.method, chosen.setting, chosen.runs, chosen.largest)))
        return
    model = ModelFile.read(chosen.model)
    if chosen.memory:
        rows = [json_of_script(__file__, *sys.argv[1:], "--setting", setting) for setting in MEMORY]
    else:
        rows = split(
            model, chosen.method, chosen.batch or [1, 8], chosen.cores, chosen.rounds, chosen.seconds, chosen.quiet
        )
    facts = {
        "model": model.metadata.model.name,
        "method": chosen.method,
        "usable_cores": usable_cores(),
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    print(json.dumps(facts, indent=2) if chosen.json else f"{facts['model']}, {chosen.method}\n{table(rows)}")


if __name__ == "__main__":
    main()
