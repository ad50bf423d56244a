"""What does a folder of photographs cost, from files to overlays in files, beside the forward passes alone?

    python benchmarks/jobs/folder_cost.py [torchvision:resnet50] [--images 64] [--batch 8] [--rounds 5]
        [--models FOLDER] [--json FILE]

`forward` is the untouched network as torch.onnx.export writes it, in onnxruntime with its defaults, on images that lie
in memory ready. `forward, one thread each` is the same on as many single threads at once as there are cores, which is
how SeeWhy runs it. The rest is `seewhy explain FOLDER` without the start: 640x480 JPEGs are read, decoded, resized,
explained by Grad-CAM, and the overlays (or the maps, in shards) written, made safe on the disk and recorded. Rounds of
all, one after the other, so that a busy machine hits them alike; before each, thread pools that spin get time to rest.

Times are wall clock. Processor time stands beside them: it says what the work costs where other programs disturb the
clock (but counts the time that onnxruntime's threads spend spinning as work).

The network has random weights, which cost what trained ones cost. The first time, PyTorch exports it in a process of
its own; with --models the files are kept. The photographs are cut from those of scikit-image.
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
    """Write the file that explains and the plain one, of the same weights."""
    from seewhy_export import export as export_model
    from seewhy_export.sources.registry import load_source

    made = load_source(source, weights="none", seed=0)
    size = made.image_size
    if not model.exists():
        export_model(
            made.module, model, image_size=size, preprocessing=made.preprocessing, labels=made.labels, name=made.name
        )
    export_forward(made.module.eval(), forward, size)


class Forward:
    """The untouched network on images that lie ready."""

    def __init__(self, model: Path, images: np.ndarray, batch: int, threads: int, at_once: int) -> None:
        self._session = cpu_session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self._batches = [images[start : start + batch] for start in range(0, len(images), batch)]
        self._at_once = at_once

    def __call__(self) -> None:
        if self._at_once == 1:
            for batch in self._batches:
                self._run(batch)
            return
        with ThreadPoolExecutor(self._at_once) as threads:
            list(threads.map(self._run, self._batches))

    def _run(self, batch: np.ndarray) -> Sequence[Any]:
        results: Sequence[Any] = self._session.run(None, {self._input: batch})
        return results


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of one run on the clock and of all processors, after a rest."""
    time.sleep(REST)
    return elapsed_and_cpu_seconds(run)


def explain(explainer: Explainer, photos: Path, out: Path, settings: Settings) -> None:
    shutil.rmtree(out, ignore_errors=True)
    summary = explain_folder(explainer, photos, out, settings)
    if summary.failed:
        raise SystemExit(f"{summary.failed} images failed; see {summary.manifest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default="torchvision:resnet50")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path, help="where the exported files lie, or are put")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = compare(chosen, Path(place))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(text(figures), end="")


def compare(chosen: argparse.Namespace, place: Path) -> dict[str, Any]:
    name = chosen.source.partition(":")[2]
    models = chosen.models or place
    model, forward = models / f"{name}.onnx", models / f"{name}.forward.onnx"
    if not (model.exists() and forward.exists()):
        process = multiprocessing.get_context("spawn").Process(target=export, args=(chosen.source, model, forward))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{chosen.source} could not be exported")
    write_sample_images(place / "photographs", chosen.images)

    explainer = Explainer(model)
    paths = sorted((place / "photographs").iterdir())
    images = normalise([load_image(path, explainer.metadata) for path in paths], explainer.metadata)
    runs: dict[str, Callable[[], object]] = {
        FORWARD: Forward(forward, images, chosen.batch, 0, 1),
        SINGLE: Forward(forward, images, chosen.batch, 1, usable_cores()),
    }
    for kind, settings in _OVERLAYS.items():
        settings = dataclasses.replace(settings, batch_size=chosen.batch)
        runs[kind] = lambda settings=settings: explain(explainer, place / "photographs", place / "out", settings)  # type: ignore[misc]
    rounds = in_turns({kind: partial(measure, run) for kind, run in runs.items()}, 1 + chosen.rounds)
    rounds = {kind: found[1:] for kind, found in rounds.items()}  # the first round loads and warms up
    return {
        "model": explainer.metadata.model.name,
        "images": chosen.images,
        "batch": chosen.batch,
        "layout": vars(
            plan_parallelism(chosen.images, None, chosen.batch, on_cpu=explainer.providers[0] == CPU, many_passes=False)
        ),
        "cores": usable_cores(),
        "machine": platform.machine(),
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "runs": {kind: _figures(found, rounds[FORWARD], chosen.images) for kind, found in rounds.items()},
    }


def _figures(found: list[tuple[float, float]], floor: list[tuple[float, float]], images: int) -> dict[str, Any]:
    clock, processor = ([1000 * value / images for value in values] for values in zip(*found, strict=True))
    times, floors = [one[0] for one in found], [one[0] for one in floor]
    least = min(one[0] for one in floor), min(one[1] for one in floor)
    return {
        "ms_an_image": round(statistics.median(clock), 2),
        "least_ms": round(min(clock), 2),
        "core_ms_an_image": round(statistics.median(processor), 2),
        "least_core_ms": round(min(processor), 2),
        "ratio": round(ratio(times, floors), 4),
        "ratio_of_least": round(min(one[0] for one in found) / least[0], 4),
        "core_ratio_of_least": round(min(one[1] for one in found) / least[1], 4),
        "cores_busy": round(statistics.median(one[1] / one[0] for one in found), 3),
        "ratios": [round(one, 4) for one in ratios(times, floors)],
    }


def text(figures: dict[str, Any]) -> str:
    head = f"{figures['model']}, {figures['images']} images, batch {figures['batch']}, {figures['cores']} cores"
    columns = {
        "ms_an_image": "ms an image",
        "least_ms": "least",
        "least_core_ms": "least core-ms",
        "ratio": "ratio to forward",
        "ratio_of_least": "of the least",
        "core_ratio_of_least": "of the least core-ms",
        "cores_busy": "cores busy",
    }
    rows = ([kind, *(run[column] for column in columns)] for kind, run in figures["runs"].items())
    return f"{head}\n\n{table(['', *columns.values()], rows)}"


if __name__ == "__main__":
    main()
