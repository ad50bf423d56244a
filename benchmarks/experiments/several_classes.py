"""What do K classes of a method cost, beside one?

    python benchmarks/experiments/several_classes.py MODEL.onnx [--method gradcam] [--classes 5] [--batch 8]
        [--threads 2] [--json]

Rounds of both, one after the other, so that a busy machine hits them alike; the median of each, and of the rounds'
ratios. Before each measurement the thread pools, which spin for a while after a run, get time to rest, and one run goes
unmeasured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from seewhy import Explainer, __version__

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.round_statistics import ratios
from benchmarks.shared.timing_in_turns import in_turns, seconds_after_pause


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()

    explainer = Explainer(chosen.model, threads=chosen.threads)
    data = explainer.metadata
    shape = (chosen.batch, data.channels, *data.image_size)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def classes(count: int) -> Callable[[], object]:
        return lambda: explainer.explain(images, chosen.method, top=count, batch_size=chosen.batch).heatmaps

    counts = (1, chosen.classes)
    times = in_turns({count: partial(seconds_after_pause, classes(count)) for count in counts}, chosen.rounds)
    one, several = (times[count] for count in counts)
    found = ratios(several, one)
    figures = {
        "model": data.model.name,
        "method": chosen.method,
        "batch": chosen.batch,
        "classes": chosen.classes,
        "one_class_ms": round(1000 * statistics.median(one), 2),
        "several_classes_ms": round(1000 * statistics.median(several), 2),
        "ratio": round(statistics.median(found), 4),
        "ratios": [round(ratio, 4) for ratio in found],
        "threads": chosen.threads,
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
    }
    if chosen.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"{figures['model']}, {chosen.method}, batch {chosen.batch}: one class {figures['one_class_ms']:.1f} ms, "
        f"{chosen.classes} classes {figures['several_classes_ms']:.1f} ms, ratio {figures['ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
