"""Measure how fast `seewhy.evaluate` runs the graph, compared with plain predictions of as many images.

    python benchmarks/jobs/evaluation_cost.py MODEL [--images 100]

Deletion and insertion of five methods and the references are measured, whose passes can be counted by hand: 38 images
for each method (19 changed images for each of two curves; both ends are shared), and for each image the plain run, and
one for each of the two baselines. The predictions use batches of 32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import seewhy
from benchmarks.shared.images import write_sample_images

METHODS = ("backprop", "guided-backprop", "gradcam", "guided-gradcam", "layercam")
STEPS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_sample_images(Path(folder) / "images", arguments.images)
        paths = sorted((Path(folder) / "images").iterdir())
        explainer = seewhy.Explainer(arguments.model)
        started = time.perf_counter()
        seewhy.evaluate(explainer, paths, Path(folder) / "all", methods=METHODS)
        everything = time.perf_counter() - started
        started = time.perf_counter()
        metrics = ["deletion", "insertion"]
        seewhy.evaluate(explainer, paths, Path(folder) / "curves", methods=METHODS, metrics=metrics)
        curves = time.perf_counter() - started
        each = (len(METHODS) + 2) * 2 * (STEPS - 1) + 2
        pixels = np.repeat(explainer.preprocess(paths[:4]), 64, axis=0)
        explainer.predict(pixels[:32])
        started = time.perf_counter()
        explainer.predict(pixels)
        rate = len(pixels) / (time.perf_counter() - started)
        single = time.perf_counter()
        explainer.explain(pixels[: len(paths)], list(METHODS))
        explain = (time.perf_counter() - single) / min(len(pixels), len(paths))
    print(f"all default metrics: {everything:.0f} s for {len(paths)} images, {everything / len(paths):.2f} s each")
    passes = each * len(paths)
    share = passes / (curves - explain * len(paths)) / rate
    print(
        f"deletion and insertion: {curves:.0f} s for {passes:,} forward passes, {share:.2f} of the rate of plain ones"
    )


if __name__ == "__main__":
    main()
