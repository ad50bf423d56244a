"""Measure how many images per second one core explains, from image files to Parquet shards and to overlays.

    python benchmarks/jobs/images_per_core.py MODEL.onnx [--images 256] [--threads 1 2] [--rounds 3]
        [--method gradcam] [--json FILE]

The script measures `seewhy explain FOLDER` without its start: 640x480 JPEG files are read, decoded, resized and
explained, and the results and the manifest are written to disk with fsync. The first round warms up and does not count.
The fastest of the other rounds counts, because other load on the machine can only slow a round down.

`per core` is the rate divided by the number of threads. Multiply it by the number of cores of a cluster
(docs/how-to/several-machines.md). `driver` is the number of images per second that the driver of `seewhy explain --ray`
can process: it reads records and maps, and commits shards. The images are crops of the sample images of scikit-image.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import onnxruntime

from seewhy import Explainer, Settings, __version__, explain_folder
from seewhy.bulk.commit import ShardWriter
from seewhy.inputs.image_inputs import Inputs
from seewhy.ray.worker import Worker, input_tables, read_outcomes
from seewhy.storage.manifest import Manifest
from seewhy.storage.output_folder import Folder
from seewhy.tables.shard_files import ShardInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.images import write_sample_images
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.timing_in_turns import elapsed_and_cpu_seconds

_FORMATS = {"parquet": {"format": "parquet"}, "jpg": {"format": "jpg", "quality": 90}}


def fastest(run: Callable[[], object], rounds: int) -> float:
    """Return the seconds of the fastest round, without the first one."""
    run()
    return min(elapsed_and_cpu_seconds(run)[0] for _ in range(rounds))


def folder_rate(explainer: Explainer, work_folder: Path, settings: Settings, images: int, rounds: int) -> float:
    """Return the images per second of a job."""

    def run() -> None:
        shutil.rmtree(work_folder / "out", ignore_errors=True)
        summary = explain_folder(explainer, work_folder / "images", work_folder / "out", settings)
        if summary.failed:
            first = json.loads(summary.manifest.read_text().splitlines()[0])
            raise SystemExit(
                f"{summary.failed} of {images} images failed; error of the first image: {first.get('error')}"
            )

    return images / fastest(run, rounds)


class _Direct(Worker):
    """Worker without the actor that counts dead workers."""

    def _explain_counted(self, batch: Any) -> Any:
        return super(Worker, self).__call__(batch)


def driver_rate(model: Path, work_folder: Path, method: str, images: int, rounds: int) -> float:
    """Return the images per second that one process reads from workers' tables and commits, without explaining."""
    worker = _Direct(None, {}, None, model=model, method=method, records=True)
    tables = input_tables(iter(Inputs([work_folder / "images"], work_folder / "out")), 128, count())
    explained_batches = [worker({name: batch[name].to_numpy() for name in batch.column_names}) for batch in tables]
    info = ShardInfo([method], worker.explainer.sha256, {})
    times = max(1, 20_000 // images)

    def run() -> None:
        shutil.rmtree(work_folder / "out", ignore_errors=True)
        folder = Folder(work_folder / "out")
        manifest = Manifest(folder.path)
        shards = ShardWriter(folder, manifest, "parquet", 1000, info)
        for number in range(times):
            for explained_batch in explained_batches:
                for _, outcome in read_outcomes(explained_batch):
                    outcome.record["id"] = str(number)
                    shards.add(outcome)
        shards.flush()
        manifest.close()

    return times * images / fastest(run, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("--images", type=int, default=256, help="number of images (default: 256)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    parser.add_argument("--method", default="gradcam", help="method (default: gradcam)")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = measure(options, Path(name))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(text(results))


def measure(options: argparse.Namespace, work_folder: Path) -> dict[str, Any]:
    write_sample_images(work_folder / "images", options.images)
    rows = []
    for threads in options.threads:
        explainer = Explainer(options.model, ["cpu"], threads)
        for form, keywords in _FORMATS.items():
            rate = folder_rate(
                explainer, work_folder, Settings([options.method], **keywords), options.images, options.rounds
            )
            rows.append({"threads": threads, "to": form, "rate": round(rate, 2), "a_core": round(rate / threads, 2)})
    return {
        "model": explainer.metadata.model.name,
        "method": options.method,
        "images": options.images,
        "machine": platform.machine(),
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "runs": rows,
        "driver": round(driver_rate(options.model, work_folder, options.method, options.images, options.rounds)),
    }


def text(results: dict[str, Any]) -> str:
    head = f"{results['model']}, {results['method']}, {results['images']} images of 640x480"
    rows = (
        [results["model"], run["to"], run["threads"], f"{run['rate']:.1f}", f"{run['a_core']:.1f}"]
        for run in results["runs"]
    )
    rates = table(["model", "to", "threads", "images per second", "per core"], rows)
    return "\n".join([head, "", rates, f"driver of --ray: {results['driver']} images per second"])


if __name__ == "__main__":
    main()
