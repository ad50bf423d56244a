"""Does a run take more memory when it has more images?

    python benchmarks/micro/memory_growth.py MODEL.onnx [--images 1000 --images 20000] [--format png --format parquet]
        [--threads N] [--folder FOLDER] [--json FILE]

Each run is `seewhy.explain_folder` in a process of its own, over hard links to a few small photographs, each link an
image of its own to the run. `peak` is the most memory that the process has had resident (VmHWM), `final` what it has
when the run is over, `growth` the peak beside that of the fewest images in the same format. The JSON file has two more
values: what was resident when the model was loaded, and what of it was no file's (RssAnon) half-way. --folder says
where images and results go meanwhile; default is a temporary folder.
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

_DIFFERENT = 16
_SIZE = (96, 72)
# Links to one file, of which a file system allows some ten thousands, and files in one folder.
_LINKS, _IN_A_FOLDER = 5000, 1000
_MIB = 2**20


def photographs(folder: Path, count: int) -> None:
    """`count` images below `folder`, most of them links to others."""
    random = np.random.default_rng(0)
    originals: list[Path] = []
    for number in range(count):
        path = folder / f"{number // _IN_A_FOLDER:04}" / f"{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % _LINKS < _DIFFERENT:
            coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
            originals = [*originals, path][-_DIFFERENT:]
        else:
            path.hardlink_to(originals[number % len(originals)])


def one(model: str, photos: Path, folder: Path, form: str, threads: int | None) -> dict[str, Any]:
    """Run in this process, and say what it took."""
    from seewhy import Explainer, Settings, explain_folder

    settings = Settings(format=form)
    explainer = Explainer(model, threads=threads)
    start = memory_of_process()
    middle: dict[str, int] = {}

    def progress(done: int, total: int | None) -> None:
        if total is not None and done == total // 2:
            middle.update(memory_of_process())

    began = time.monotonic()
    summary = explain_folder(explainer, photos, folder, settings, progress=progress)
    seconds = time.monotonic() - began
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
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        photographs(Path(place) / "photos", count)
        given = [] if threads is None else ["--threads", str(threads)]
        found = json_of_script(__file__, model, "--worker", place, "--format", form, *given)
    if (found["images"], found["failed"]) != (count, 0):
        raise SystemExit(f"{found['images']} of {count} images were explained, {found['failed']} failed")
    return {"format": form, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, action="append")
    parser.add_argument("--format", action="append", dest="formats")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker is not None:
        place: Path = chosen.worker
        print(json.dumps(one(chosen.model, place / "photos", place / "out", chosen.formats[0], chosen.threads)))
        return
    counts, formats = chosen.images or [1000, 20000], chosen.formats or ["png", "parquet"]
    rows = []
    print("format    images  peak MiB  final MiB  growth  seconds", flush=True)
    for form in formats:
        least = 0
        for count in sorted(counts):
            row = measure(chosen.model, count, form, chosen.threads, chosen.folder)
            least = least or row["peak"]
            row["growth"] = row["peak"] / least - 1
            rows.append(row)
            print(
                f"{form:8}  {count:6}  {row['peak'] / _MIB:8.1f}  {row['final'] / _MIB:9.1f}  {row['growth']:+6.1%}  "
                f"{row['seconds']:7.1f}",
                flush=True,
            )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
