"""How many images a second does one core explain, from files to Parquet shards and to overlays?

    python benchmarks/jobs/images_per_core.py MODEL.onnx [--images 256] [--threads 1 2] [--rounds 3]
        [--method gradcam] [--json FILE]

What is measured is `seewhy explain FOLDER` without its start: 640x480 JPEGs are read, decoded, resized and explained,
and the results made safe on the disk, manifest included. The first round loads and warms up and is not counted. Of the
others the quickest counts, since what else a machine does only ever takes time away.

`in, one core` is the rate divided by the threads: what to multiply by the cores of a fleet
(docs/how-to/several-machines.md). `driver` is how many images a second the driver of `seewhy explain --ray` takes in,
whatever the workers make: it reads records and maps, and commits shards. The photographs are cut from those of
scikit-image.
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
from seewhy.ray.worker import Worker, input_tables, outcomes
from seewhy.storage.manifest import Manifest
from seewhy.storage.output_folder import Folder
from seewhy.tables.shard_files import ShardInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.images import write_sample_images
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.timing_in_turns import elapsed_and_cpu_seconds

_FORMATS = {"parquet": {"format": "parquet"}, "jpg": {"format": "jpg", "quality": 90}}


def best(run: Callable[[], object], rounds: int) -> float:
    """Seconds of the quickest round but the first."""
    run()
    return min(elapsed_and_cpu_seconds(run)[0] for _ in range(rounds))


def folder_rate(explainer: Explainer, place: Path, settings: Settings, images: int, rounds: int) -> float:
    """Images a second."""

    def run() -> None:
        shutil.rmtree(place / "out", ignore_errors=True)
        summary = explain_folder(explainer, place / "photographs", place / "out", settings)
        if summary.failed:
            first = json.loads(summary.manifest.read_text().splitlines()[0])
            raise SystemExit(f"{summary.failed} of {images} images failed, the first for: {first.get('error')}")

    return images / best(run, rounds)


class _Direct(Worker):
    """Without the actor that counts how often workers died."""

    def _counted(self, batch: Any) -> Any:
        return super(Worker, self).__call__(batch)


def driver_rate(model: Path, place: Path, method: str, images: int, rounds: int) -> float:
    """Images a second that one process reads from workers' tables and commits; the explaining is not counted."""
    worker = _Direct(None, {}, None, model=model, method=method, records=True)
    pieces = input_tables(iter(Inputs([place / "photographs"], place / "out")), 128, count())
    answers = [worker({name: piece[name].to_numpy() for name in piece.column_names}) for piece in pieces]
    about = ShardInfo([method], worker.explainer.sha256, {})
    times = max(1, 20_000 // images)

    def run() -> None:
        shutil.rmtree(place / "out", ignore_errors=True)
        folder = Folder(place / "out")
        manifest = Manifest(folder.path)
        shards = ShardWriter(folder, manifest, "parquet", 1000, about)
        for number in range(times):
            for answer in answers:
                for _, outcome in outcomes(answer):
                    outcome.record["id"] = str(number)
                    shards.add(outcome)
        shards.flush()
        manifest.close()

    return times * images / best(run, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(chosen, Path(name))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(text(figures))


def measure(chosen: argparse.Namespace, place: Path) -> dict[str, Any]:
    write_sample_images(place / "photographs", chosen.images)
    rows = []
    for threads in chosen.threads:
        explainer = Explainer(chosen.model, ["cpu"], threads)
        for form, how in _FORMATS.items():
            rate = folder_rate(explainer, place, Settings([chosen.method], **how), chosen.images, chosen.rounds)
            rows.append({"threads": threads, "to": form, "rate": round(rate, 2), "a_core": round(rate / threads, 2)})
    return {
        "model": explainer.metadata.model.name,
        "method": chosen.method,
        "images": chosen.images,
        "machine": platform.machine(),
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "runs": rows,
        "driver": round(driver_rate(chosen.model, place, chosen.method, chosen.images, chosen.rounds)),
    }


def text(figures: dict[str, Any]) -> str:
    head = f"{figures['model']}, {figures['method']}, {figures['images']} images of 640x480"
    rows = (
        [figures["model"], run["to"], run["threads"], f"{run['rate']:.1f}", f"{run['a_core']:.1f}"]
        for run in figures["runs"]
    )
    rates = table(["model", "to", "threads", "images a second", "in one core"], rows)
    return "\n".join([head, "", rates, f"driver of --ray: {figures['driver']} images a second"])


if __name__ == "__main__":
    main()
