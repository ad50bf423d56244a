"""Measure whether the memory of a job grows with the number of images.

    python benchmarks/micro/memory_growth.py MODEL.onnx [--images 1000 --images 20000] [--format png --format parquet]
        [--threads N] [--folder FOLDER] [--json FILE]

Each job is a call of `seewhy.explain_folder` in its own process. Its images are hard links to a few small files, and
each link counts as one image. The columns are:

- `peak`: largest resident memory of the process (VmHWM).
- `final`: resident memory at the end of the job (VmRSS).
- `growth`: peak relative to the peak of the job with the fewest images in the same format.

The JSON file also has the resident memory after loading the model (`start`) and the anonymous memory halfway (`middle`,
RssAnon).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.child_processes import json_of_script
from benchmarks.shared.machine_facts import memory_of_process

_DISTINCT = 16
_SIZE = (96, 72)
# Links per file, of which a file system allows some ten thousands, and files per folder.
_LINKS, _PER_FOLDER = 5000, 1000
_MIB = 2**20


def write_images(folder: Path, count: int) -> None:
    """Write `count` images below `folder`, most of them hard links to others."""
    random = np.random.default_rng(0)
    originals: list[Path] = []
    for number in range(count):
        path = folder / f"{number // _PER_FOLDER:04}" / f"{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % _LINKS < _DISTINCT:
            coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
            originals = [*originals, path][-_DISTINCT:]
        else:
            path.hardlink_to(originals[number % len(originals)])


def run_job(model: str, image_folder: Path, folder: Path, form: str, threads: int | None) -> dict[str, Any]:
    """Run one job in this process and return its memory and time."""
    from seewhy import Explainer, Settings, explain_folder

    settings = Settings(format=form)
    explainer = Explainer(model, threads=threads)
    start = memory_of_process()
    middle: dict[str, int] = {}

    def progress(done: int, total: int | None) -> None:
        if total is not None and done == total // 2:
            middle.update(memory_of_process())

    started = time.monotonic()
    summary = explain_folder(explainer, image_folder, folder, settings, progress=progress)
    seconds = time.monotonic() - started
    end = memory_of_process()
    return {
        "images": summary.done,
        "failed": summary.failed,
        "seconds": seconds,
        "start": start["VmRSS"],
        "middle": middle.get("RssAnon"),
        "peak": end["VmHWM"],
        "final": end["VmRSS"],
    }


def measure(model: str, count: int, form: str, threads: int | None, folder: Path) -> dict[str, Any]:
    """Run one job in a new process and return its measurements."""
    with tempfile.TemporaryDirectory(dir=folder) as work_folder:
        write_images(Path(work_folder) / "images", count)
        arguments = [] if threads is None else ["--threads", str(threads)]
        found = json_of_script(__file__, model, "--worker", work_folder, "--format", form, *arguments)
    if (found["images"], found["failed"]) != (count, 0):
        raise SystemExit(f"{found['images']} of {count} images were explained, {found['failed']} failed")
    return {"format": form, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="model file")
    parser.add_argument(
        "--images", type=int, action="append", help="number of images; repeatable (default: 1000 and 20000)"
    )
    parser.add_argument(
        "--format", action="append", dest="formats", help="result format; repeatable (default: png and parquet)"
    )
    parser.add_argument("--threads", type=int, help="threads of the Explainer (default: all cores)")
    parser.add_argument("--folder", type=Path, help="folder for images and results (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        work_folder: Path = options.worker
        print(
            json.dumps(
                run_job(options.model, work_folder / "images", work_folder / "out", options.formats[0], options.threads)
            )
        )
        return
    counts, formats = options.images or [1000, 20000], options.formats or ["png", "parquet"]
    rows = []
    print("format    images  peak MiB  final MiB  growth  seconds", flush=True)
    for form in formats:
        smallest_peak = 0
        for count in sorted(counts):
            row = measure(options.model, count, form, options.threads, options.folder)
            smallest_peak = smallest_peak or row["peak"]
            row["growth"] = row["peak"] / smallest_peak - 1
            rows.append(row)
            print(
                f"{form:8}  {count:6}  {row['peak'] / _MIB:8.1f}  {row['final'] / _MIB:9.1f}  {row['growth']:+6.1%}  "
                f"{row['seconds']:7.1f}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
