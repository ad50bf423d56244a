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
import time
from collections.abc import Callable

import numpy as np
import onnxruntime

from seewhy import Explainer, __version__

_REST = 0.15


def measure(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    time.sleep(_REST)
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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

    one, several = classes(1), classes(chosen.classes)
    rounds = [(measure(one), measure(several)) for _ in range(chosen.rounds)]
    figures = {
        "model": data.model.name,
        "method": chosen.method,
        "batch": chosen.batch,
        "classes": chosen.classes,
        "one_class_ms": round(1000 * statistics.median(first for first, _ in rounds), 2),
        "several_classes_ms": round(1000 * statistics.median(second for _, second in rounds), 2),
        "ratio": round(statistics.median(second / first for first, second in rounds), 4),
        "ratios": [round(second / first, 4) for first, second in rounds],
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
