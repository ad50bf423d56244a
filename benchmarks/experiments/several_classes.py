"""Measure the time of explaining K classes relative to one class.

    python benchmarks/experiments/several_classes.py MODEL.onnx [--method gradcam] [--classes 5] [--batch 8]
        [--threads 2] [--json]

Both take turns in rounds, so that other load on the machine affects them alike. The results are the median of each and
the median of the rounds' ratios. Before each measurement there is a pause, because thread pools spin for a while after
a call, and one unmeasured call.
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
    parser.add_argument("model", help="model file")
    parser.add_argument("--method", default="gradcam", help="method (default: gradcam)")
    parser.add_argument("--classes", type=int, default=5, help="number of classes (default: 5)")
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: 8)")
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default: 9)")
    parser.add_argument("--threads", type=int, help="number of threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()

    explainer = Explainer(options.model, threads=options.threads)
    data = explainer.metadata
    shape = (options.batch, data.channels, *data.image_size)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def explain_top(count: int) -> Callable[[], object]:
        return lambda: explainer.explain(images, options.method, top=count, batch_size=options.batch).heatmaps

    counts = (1, options.classes)
    times = in_turns({count: partial(seconds_after_pause, explain_top(count)) for count in counts}, options.rounds)
    one_class, several = (times[count] for count in counts)
    all_ratios = ratios(several, one_class)
    figures = {
        "model": data.model.name,
        "method": options.method,
        "batch": options.batch,
        "classes": options.classes,
        "one_class_ms": round(1000 * statistics.median(one_class), 2),
        "several_classes_ms": round(1000 * statistics.median(several), 2),
        "ratio": round(statistics.median(all_ratios), 4),
        "ratios": [round(ratio, 4) for ratio in all_ratios],
        "threads": options.threads,
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"{figures['model']}, {options.method}, batch {options.batch}: one class {figures['one_class_ms']:.1f} ms, "
        f"{options.classes} classes {figures['several_classes_ms']:.1f} ms, ratio {figures['ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
