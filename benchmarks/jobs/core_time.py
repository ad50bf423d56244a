"""Measure where the processor time of a job goes, and compare it with the sum of its parts alone.

    python benchmarks/jobs/core_time.py MODEL.onnx [--images 64] [--batch 8] [--rounds 5] [--format jpg]
                                           [--json FILE] [--name NAME]

The job is `seewhy explain FOLDER` without its start: it explains 640x480 JPEG files with Grad-CAM and writes overlays
with captions. The functions of each step are wrapped, and a timer counts the processor time of their thread, without
that of other wrapped functions inside. The parts are the same work without a job, on one thread: loading the images,
explaining them in batches, and drawing and encoding the figures. Loading is measured once more with Pillow's resizing,
which computes the same bytes. Job and parts take turns in rounds.

A thread alone has more of the caches, of the session's memory and of Python's lock than each thread of a job. Therefore
the same parts are also measured on one thread for each core at once, batch by batch, which share a session as the
threads of a job do. The difference between this row and the job is what the job itself adds: listing, handing over
images, records, and writing and syncing files.

Processor times are milliseconds per image, and each row is the median of the rounds. They grow with other load on the
machine, because caches are shared, so compare figures of one run. The images are crops of the sample images of
scikit-image.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import onnxruntime

from seewhy import Explainer, Settings, explain_folder
from seewhy._shared.cpu_count import usable_cores
from seewhy.bulk import commit, image_stages, thread_pipeline
from seewhy.images import preprocessing, resizing
from seewhy.images.preprocessing import LoadedImage, load_image
from seewhy.storage.image_encoding import Encoding
from seewhy.storage.manifest import Manifest
from seewhy.storage.output_folder import Folder

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import case_files, machine_facts
from benchmarks.shared.images import write_sample_images
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.timing_in_turns import REST, in_turns

# Step -> functions, as (owner, name). A step does not count the steps that its functions call.
_STEPS: dict[str, list[tuple[Any, str]]] = {
    "decode": [(preprocessing, "_decode")],
    "resize and crop": [(preprocessing, "resize_and_crop")],
    "load: stamps and checks": [(image_stages.ImageStages, "_load")],
    "normalise": [(preprocessing, "normalize")],
    "run of the session": [(onnxruntime.InferenceSession, "run")],
    "explain: checks and maps": [(image_stages.ImageStages, "explain")],
    "draw": [(image_stages.ImageStages, name) for name in ("drawn", "_rendered")] + [(image_stages, "captioned")],
    "encode": [(Encoding, "save")],
    "hash the results": [(hashlib, "sha256")],
    "write and rename": [(Folder, "write")],
    "save: records and names": [(image_stages.ImageStages, "_save")],
    "sync": [(commit, "sync"), (commit, "_sync")],
    "manifest": [(Manifest, "append")],
    "pipeline": [(thread_pipeline._Pipeline, "work")],
}
_OTHER, _IDLE = "listing, consumer, other threads", "idle"
_BY_PILLOW, _AT_ONCE = "load with Pillow's resizing", "all parts, a thread on each core at once"
# Rows of the parts that are not added up.
_REPEATED = (_BY_PILLOW, _AT_ONCE)


class StepTimer:
    """Processor time of each step, without the steps inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = threading.local()

    def wrap(self, owner: Any, name: str, step: str) -> None:
        """Replace a function by one that counts its time."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            outer = getattr(self._inside, "seconds", 0.0)
            self._inside.seconds, start = 0.0, time.thread_time()
            try:
                return function(*args, **options)
            finally:
                spent = time.thread_time() - start
                self.seconds[step] += spent - self._inside.seconds
                self._inside.seconds = outer + spent

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("--images", type=int, default=64, help="number of images (default: 64)")
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--format", default="jpg", help="format of the figures (default: jpg)")
    parser.add_argument("--json", type=Path, help="JSON file to which the results are added, under the model's name")
    parser.add_argument("--name", help="name of the model in the results (default: the name of its file)")
    options = parser.parse_args()
    options.name = options.name or options.model.stem
    machine = machine_facts.describe()
    if options.json is not None:
        case_files.refuse_other_machine(options.json, machine)
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as work_folder:
        images, out = Path(work_folder) / "images", Path(work_folder) / "out"
        write_sample_images(images, options.images)
        explainer, settings = Explainer(options.model), Settings(format=options.format, batch_size=options.batch)
        alone = Parts(options.model, sorted(images.iterdir()), options)
        for step, functions in _STEPS.items():
            for owner, name in functions:
                timer.wrap(owner, name, step)

        def job() -> dict[str, float]:
            shutil.rmtree(out, ignore_errors=True)
            time.sleep(REST)
            timer.seconds.clear()
            start, start_cpu = time.perf_counter(), time.process_time()
            if explain_folder(explainer, images, out, settings).failed:
                raise SystemExit("an image failed")
            elapsed, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            found = {step: timer.seconds[step] for step in _STEPS}
            return {**found, _OTHER: cpu - sum(found.values()), _IDLE: usable_cores() * elapsed - cpu}

        rounds = in_turns({"job": job, "parts": alone}, 1 + options.rounds)
    jobs, parts = rounds["job"][1:], rounds["parts"][1:]
    print(text(options, medians(jobs, options.images), medians(parts, options.images)), end="")
    if options.json is not None:
        conditions = {name: getattr(options, name) for name in ("images", "batch", "format")}
        found = {"steps": medians(jobs, options.images), "parts": medians(parts, options.images)}
        case = {**conditions, **found, "rounds": core_times(jobs, parts, options.images)}
        case_files.add_case(options.json, machine, options.name, case)


class Parts:
    """The work of a job, each part alone on one thread."""

    def __init__(self, model: Path, paths: list[Path], options: argparse.Namespace) -> None:
        self._explainer, self._paths, self._batch = Explainer(model, threads=1), paths, options.batch
        self._encoding = Encoding(options.format)

    def __call__(self) -> dict[str, float]:
        """Return the processor seconds of each part."""
        seconds, results = Counter[str](), []
        time.sleep(REST)

        def measure(part: str, work: Callable[[], Any]) -> Any:
            start = time.process_time()
            result = work()
            seconds[part] += time.process_time() - start
            return result

        metadata = self._explainer.metadata

        def load() -> list[LoadedImage]:
            return [load_image(path, metadata, keep=False) for path in self._paths]

        loaded = measure("load", load)
        with mock.patch.object(resizing, "_is_left_to_pillow", return_value=True):
            by_pillow = measure(_BY_PILLOW, load)
        if any((one.view != other.view).any() for one, other in zip(loaded, by_pillow, strict=True)):
            raise SystemExit("the pixels differ from those of Pillow's resizing")
        for start in range(0, len(loaded), self._batch):
            batch = loaded[start : start + self._batch]
            results.append(measure("explain", lambda batch=batch: self._explainer.explain(batch)))
        for result in results:
            figures = measure("draw and encode", result.figures)
            measure("draw and encode", lambda figures=figures: [self._encoding.save(f, io.BytesIO()) for f in figures])
        time.sleep(REST)
        measure(_AT_ONCE, self._at_once)
        return dict(seconds)

    def _at_once(self) -> None:
        """Do all parts, batch by batch, on one thread for each core."""
        batches = [self._paths[start : start + self._batch] for start in range(0, len(self._paths), self._batch)]

        def work(batch: list[Path]) -> None:
            loaded = [load_image(path, self._explainer.metadata, keep=False) for path in batch]
            for figure in self._explainer.explain(loaded).figures():
                self._encoding.save(figure, io.BytesIO())

        with ThreadPoolExecutor(usable_cores()) as pool:
            for _ in pool.map(work, batches):
                pass


def medians(rounds: list[dict[str, float]], images: int) -> dict[str, float]:
    """Return the median of each step, in milliseconds per image."""
    return {step: round(1000 * statistics.median(one[step] for one in rounds) / images, 3) for step in rounds[0]}


def core_times(jobs: list[dict[str, float]], parts: list[dict[str, float]], images: int) -> dict[str, list[float]]:
    """Return core-ms per image of every round: the job, the sum of its parts, loading, and what is measured twice."""
    columns = {
        "job": [_job_time(job) for job in jobs],
        "parts": [_sum_of_parts(one) for one in parts],
        **{part: [one[part] for one in parts] for part in ("load", *_REPEATED)},
    }
    return {name: [round(1000 * seconds / images, 3) for seconds in column] for name, column in columns.items()}


def _job_time(steps: Mapping[str, float]) -> float:
    return sum(steps.values()) - steps[_IDLE]


def _sum_of_parts(parts: Mapping[str, float]) -> float:
    return sum(value for part, value in parts.items() if part not in _REPEATED)


def text(options: argparse.Namespace, job: dict[str, float], parts: dict[str, float]) -> str:
    head = f"{options.name}, {options.images} images, batch {options.batch}, {usable_cores()} cores"
    total, alone = _job_time(job), _sum_of_parts(parts)
    rows = [[step, f"{value:.2f}"] for step, value in [*list(job.items())[:-1], ("all but idle", total)]]
    rows.append([_IDLE, f"{job[_IDLE]:.2f}"])
    rows += [[f"alone: {part}", f"{value:.2f}"] for part, value in parts.items() if part != _AT_ONCE]
    rows.append([_AT_ONCE, f"{parts[_AT_ONCE]:.2f}"])
    rows.append(["job ÷ sum of the parts", f"{total / alone:.2f}"])
    rows.append(["job ÷ all parts at once", f"{total / parts[_AT_ONCE]:.2f}"])
    rows.append(["load ÷ load with Pillow's resizing", f"{parts['load'] / parts[_BY_PILLOW]:.2f}"])
    return f"{head}\n\n{table(['step', 'core-ms per image'], rows)}"


if __name__ == "__main__":
    main()
