"""Measure the time of a job, from image files to overlay files, relative to its forward passes.

    python benchmarks/jobs/folder_cost.py [torchvision:resnet50] [--images 64] [--batch 8] [--rounds 5]
        [--models FOLDER] [--json FILE]

The rows of the table are:

- `forward`: the unchanged network, written by torch.onnx.export, in onnxruntime with its defaults, on arrays in memory.
- `forward, one thread each`: the same with one single-threaded run per core at a time, as SeeWhy runs it.
- all others: `seewhy explain FOLDER` without its start. It reads, decodes, resizes and explains 640x480 JPEG files with
  Grad-CAM, and writes overlays or shards to disk with fsync.

All rows take turns in rounds, so that other load on the machine affects them alike. A pause before each measurement
lets spinning thread pools stop.

Times are elapsed times. The table also shows the CPU time, which other load affects less, but which counts the spinning
of onnxruntime's threads as work.

The network has random weights, which take the same time as trained ones. PyTorch exports it in a child process; with
--models the files are kept. The images are crops of the sample images of scikit-image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL

from seewhy import Explainer, Settings, __version__, explain_folder
from seewhy._shared.cpu_count import usable_cores
from seewhy.bulk.parallel_plan import plan_parallelism
from seewhy.images.preprocessing import load_image, normalise
from seewhy.runtime.providers import CPU

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.forward_pass import cpu_session, export_forward
from benchmarks.shared.images import write_sample_images
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.round_statistics import ratio, ratios
from benchmarks.shared.timing_in_turns import REST, elapsed_and_cpu_seconds, in_turns

_OVERLAYS = {
    "jpg": Settings(format="jpg", quality=90),
    "jpg, without captions": Settings(format="jpg", quality=90, plain=True),
    "webp": Settings(format="webp", quality=90),
    "png": Settings(),
    "jpg, original size": Settings(format="jpg", quality=90, canvas="original"),
    "png, original size": Settings(canvas="original"),
    "npz": Settings(format="npz"),
    "parquet": Settings(format="parquet"),
    "jpg, fast decoding": Settings(format="jpg", quality=90, fast_decode=True),
}
FORWARD, SINGLE = "forward", "forward, one thread each"


def export(source: str, model: Path, forward: Path) -> None:
    """Write the model file and the plain forward pass of the same weights."""
    from seewhy_export import export as export_model
    from seewhy_export.sources.registry import load_source

    source_network = load_source(source, weights="none", seed=0)
    size = source_network.image_size
    if not model.exists():
        export_model(
            source_network.module,
            model,
            image_size=size,
            preprocessing=source_network.preprocessing,
            labels=source_network.labels,
            name=source_network.name,
        )
    export_forward(source_network.module.eval(), forward, size)


class Forward:
    """Forward passes of the unchanged network on images in memory."""

    def __init__(self, model: Path, images: np.ndarray, batch: int, threads: int, concurrency: int) -> None:
        self._session = cpu_session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self._batches = [images[start : start + batch] for start in range(0, len(images), batch)]
        self._concurrency = concurrency

    def __call__(self) -> None:
        if self._concurrency == 1:
            for batch in self._batches:
                self._run(batch)
            return
        with ThreadPoolExecutor(self._concurrency) as threads:
            list(threads.map(self._run, self._batches))

    def _run(self, batch: np.ndarray) -> Sequence[Any]:
        results: Sequence[Any] = self._session.run(None, {self._input: batch})
        return results


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Return the elapsed seconds and the CPU seconds of one call, after a pause."""
    time.sleep(REST)
    return elapsed_and_cpu_seconds(run)


def explain(explainer: Explainer, image_folder: Path, out: Path, settings: Settings) -> None:
    """Run a job into an empty output folder, and exit if an image fails."""
    shutil.rmtree(out, ignore_errors=True)
    summary = explain_folder(explainer, image_folder, out, settings)
    if summary.failed:
        raise SystemExit(f"{summary.failed} images failed; see {summary.manifest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "source", nargs="?", default="torchvision:resnet50", help="network (default: torchvision:resnet50)"
    )
    parser.add_argument("--images", type=int, default=64, help="number of images (default: 64)")
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--models", type=Path, help="folder that keeps the exported files")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work_folder:
        results = compare(options, Path(work_folder))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(text(results), end="")


def compare(options: argparse.Namespace, work_folder: Path) -> dict[str, Any]:
    """Export the network, measure all rows, and return the results."""
    name = options.source.partition(":")[2]
    models = options.models or work_folder
    model, forward = models / f"{name}.onnx", models / f"{name}.forward.onnx"
    if not (model.exists() and forward.exists()):
        process = multiprocessing.get_context("spawn").Process(target=export, args=(options.source, model, forward))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{options.source} could not be exported")
    write_sample_images(work_folder / "images", options.images)

    explainer = Explainer(model)
    paths = sorted((work_folder / "images").iterdir())
    images = normalise([load_image(path, explainer.metadata) for path in paths], explainer.metadata)
    runs: dict[str, Callable[[], object]] = {
        FORWARD: Forward(forward, images, options.batch, 0, 1),
        SINGLE: Forward(forward, images, options.batch, 1, usable_cores()),
    }
    for kind, settings in _OVERLAYS.items():
        settings = dataclasses.replace(settings, batch_size=options.batch)
        runs[kind] = lambda settings=settings: explain(explainer, work_folder / "images", work_folder / "out", settings)  # type: ignore[misc]
    rounds = in_turns({kind: partial(measure, run) for kind, run in runs.items()}, 1 + options.rounds)
    rounds = {kind: found[1:] for kind, found in rounds.items()}  # the first round loads and warms up
    return {
        "model": explainer.metadata.model.name,
        "images": options.images,
        "batch": options.batch,
        "layout": vars(
            plan_parallelism(
                options.images, None, options.batch, on_cpu=explainer.providers[0] == CPU, multi_pass=False
            )
        ),
        "cores": usable_cores(),
        "machine": platform.machine(),
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "runs": {kind: _summary(found, rounds[FORWARD], options.images) for kind, found in rounds.items()},
    }


def _summary(found: list[tuple[float, float]], floor: list[tuple[float, float]], images: int) -> dict[str, Any]:
    elapsed, cpu = ([1000 * value / images for value in values] for values in zip(*found, strict=True))
    times, floors = [pair[0] for pair in found], [pair[0] for pair in floor]
    least = min(pair[0] for pair in floor), min(pair[1] for pair in floor)
    return {
        "ms_an_image": round(statistics.median(elapsed), 2),
        "least_ms": round(min(elapsed), 2),
        "core_ms_an_image": round(statistics.median(cpu), 2),
        "least_core_ms": round(min(cpu), 2),
        "ratio": round(ratio(times, floors), 4),
        "ratio_of_least": round(min(pair[0] for pair in found) / least[0], 4),
        "core_ratio_of_least": round(min(pair[1] for pair in found) / least[1], 4),
        "cores_busy": round(statistics.median(pair[1] / pair[0] for pair in found), 3),
        "ratios": [round(value, 4) for value in ratios(times, floors)],
    }


def text(results: dict[str, Any]) -> str:
    head = f"{results['model']}, {results['images']} images, batch {results['batch']}, {results['cores']} cores"
    columns = {
        "ms_an_image": "ms per image",
        "least_ms": "minimum",
        "least_core_ms": "minimum CPU ms",
        "ratio": "ratio to forward",
        "ratio_of_least": "ratio of minimums",
        "core_ratio_of_least": "ratio of minimum CPU ms",
        "cores_busy": "cores busy",
    }
    rows = ([kind, *(run[column] for column in columns)] for kind, run in results["runs"].items())
    return f"{head}\n\n{table(['', *columns.values()], rows)}"


if __name__ == "__main__":
    main()
