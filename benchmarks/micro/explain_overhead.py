"""Measure what `Explainer.explain` costs beyond its runs of onnxruntime.

    python benchmarks/micro/explain_overhead.py MODEL.onnx [INT8.onnx ...] [--method gradcam] [--batch 1 --batch 8]
        [--rounds 15]

In each round, these calls take turns:

- `explain`: `explain` of preprocessed images for one class each, and the heatmaps
- `runs alone`: the runs of onnxruntime that this call makes, repeated by the same sessions with nothing between them

Each turn is the median of several calls in a row, after a pause in which spinning threads stop and an unmeasured call.
A run takes everything else out of the caches, so the code around it is as slow as in a program that explains images
one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import recorded_runs
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.round_statistics import order
from benchmarks.shared.timing_in_turns import REST, in_turns
from seewhy import Explainer

CALLS = 7
"""Number of measured calls in one turn."""


def turn(call: Callable[[], object]) -> float:
    """Return the milliseconds of one call: the median of several, after a pause and an unmeasured call."""
    time.sleep(REST)
    call()
    found = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


def measure(explainer: Explainer, method: str, batch: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of `explain` and of its runs alone in each round."""
    shape = (batch, explainer.metadata.channels, *explainer.metadata.image_size)
    pixels = np.random.default_rng(0).standard_normal(shape, np.float32)
    targets = list(range(batch))

    def explain() -> None:
        _ = explainer.explain(pixels, method, target=targets).heatmaps

    explain()
    runs = recorded_runs.runs_of(explain)
    calls = {"explain": explain, "runs": partial(recorded_runs.repeat, runs)}
    found = in_turns({name: partial(turn, call) for name, call in calls.items()}, rounds, order)
    return found["explain"], found["runs"]


def row(name: str, batch: int, explain: Sequence[float], runs: Sequence[float]) -> list[str]:
    """Return one row of the table."""
    beyond = statistics.median(one - other for one, other in zip(explain, runs, strict=True))
    figures = (statistics.median(explain), statistics.median(runs), beyond, min(explain) - min(runs))
    return [name, str(batch), *(f"{figure:.2f}" for figure in figures)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="model files of SeeWhy")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--batch", type=int, action="append", help="number of images (default: 1 and 8)")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    recorded_runs.record_sessions()
    rows = []
    for path in options.models:
        explainer = Explainer(path)
        for batch in options.batch or (1, 8):
            rows.append(row(path.stem, batch, *measure(explainer, options.method, batch, options.rounds)))
    heads = ["model", "images", "explain, ms", "runs alone, ms", "beyond, ms: median", "of the fastest turns"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
