"""Helpers for tests of interrupted jobs: write images, some of them damaged, and check the files of a job."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, explain_folder
from seewhy.bulk.settings import Settings

JOB_FILES = {"manifest.jsonl", "run.json", ".seewhy.lock"}
FORMATS = ("png", "npz", "parquet")


def write_images(folder: Path, count: int, damaged: int = 0) -> list[Path]:
    """Write `count` images of different sizes and formats below `folder`, `damaged` of them spread among the others."""
    random = np.random.default_rng(count)
    made = []
    for number in range(count):
        size = (int(random.integers(10, 30)), int(random.integers(10, 30)))
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        path = folder / f"{number % 3}" / f"{number:04}.{('png', 'jpg', 'webp')[number % 7 % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        made.append(path)
    for turn, number in enumerate(np.linspace(1, count - 1, damaged).astype(int) if damaged else ()):
        content = made[number].read_bytes()
        made[number].write_bytes((b"", content[: len(content) // 2], b"no image at all", content[::-1])[turn % 4])
    return sorted(made)


def settings(form: str, shard_images: int = 4, **more: Any) -> Settings:
    """Return the settings of a job in one of FORMATS. Skip the test for parquet if pyarrow is not installed."""
    if form == "png":
        return Settings(**more)
    if form == "parquet":
        pytest.importorskip("pyarrow")
    return Settings(format=form, shard_images=shard_images, **more)


def lines(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a job's manifest."""
    text = (out / "manifest.jsonl").read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def rows(out: Path, form: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of all shards in order, with numbers as bytes and a missing heatmap as None."""
    for path in sorted((out / "shards").iterdir()):
        assert path.suffix == f".{form}", path
        yield from shard(path)


def shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of one shard, in the same form as `rows`."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            columns = {name: file[name] for name in file.files if name != "run"}
        for i in range(len(columns["path"])):
            row = {k: str(v[i]) if v.dtype.kind == "U" else v[i].tobytes() for k, v in columns.items()}
            yield row | ({"heatmap": None} if np.isnan(columns["heatmap"][i]).all() else {})
    else:
        from pyarrow import parquet

        for row in parquet.read_table(path).to_pylist():
            yield {**row, "heatmap": row["heatmap"] and np.array(row["heatmap"], np.float32).tobytes()}


def files(folder: Path) -> list[str]:
    """Return the sorted paths of all files below a folder, relative to the folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def contents(folder: Path) -> dict[str, Any]:
    """Return the content of all files, links and folders below a folder, except the lock file.

    The lock file is left out because it names the process that held it last.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".seewhy.lock" or path.is_dir():  # an archive may hold a folder of this name
            inside = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[path.relative_to(folder).as_posix()] = inside
    return found


def assert_complete(out: Path, paths: list[Path], form: str) -> None:
    """Assert that the manifest has one line per image, in order, with intact files, and that no other files exist."""
    found = lines(out)
    assert [line["path"] for line in found] == [str(path) for path in paths]
    named = [file["path"] for line in found for file in line.get("files", ())]
    assert len(named) == len(set(named))
    for name in named:
        with Image.open(out / name) as image:
            image.load()
    shards = list(dict.fromkeys(line["shard"]["path"] for line in found if "shard" in line))
    for one in [
        file for line in found for file in (*line.get("files", ()), *([line["shard"]] if "shard" in line else ()))
    ]:
        content = (out / one["path"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(content), hashlib.sha256(content).hexdigest()), one
    assert files(out) == sorted([*JOB_FILES, *named, *shards])
    assert not (out / ".seewhy-unfinished").exists()
    for line in found:
        assert (line["status"] == "failed") == ("error" in line)
        assert ("files" in line) == (form == "png" and line["status"] == "done")
        assert ("shard" in line) == (form != "png")
    if form != "png":
        assert [row["path"] for row in rows(out, form)] == [line["path"] for line in found]


def assert_same(out: Path, whole: Path, paths: list[Path], form: str) -> None:
    """Assert that `out` is complete and has the same results as `whole`, the output of an uninterrupted job.

    The results may be in other shards.
    """
    assert_complete(whole, paths, form)
    assert_complete(out, paths, form)
    found, expected = (
        [{k: v for k, v in line.items() if k not in ("shard", "lines", "crc32")} for line in lines(folder)]
        for folder in (out, whole)
    )
    assert found == expected
    for line in expected:
        for name in (file["path"] for file in line.get("files", ())):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    if form != "png":
        for one, other in zip(rows(out, form), rows(whole, form), strict=True):
            assert one == other


def explain_and_check(explainer: Explainer, images: Any, place: Path, **more: Any) -> list[dict[str, Any]]:
    """Run a job, assert that it wrote only the files that its manifest names, and return the lines of the manifest."""
    before = contents(place)
    explain_folder(explainer, images, place / "out", **more)
    found = lines(place / "out")
    named = [file["path"] for line in found for file in line.get("files", ())]
    assert len(named) == len(set(named)) == sum(line["status"] == "done" for line in found)
    expected = {f"out/{name}" for name in [*named, "manifest.jsonl", "run.json"]}
    expected |= {str(parent) for name in expected for parent in PurePath(name).parents} - {"."}
    assert contents(place).keys() - before.keys() == expected - before.keys()
    assert {name: content for name, content in contents(place).items() if name in before} == before
    for name in named:
        assert (place / "out").resolve() in (place / "out" / name).resolve().parents
    return found


def archive(path: Path, names: list[str], content: bytes) -> Path:
    """Write a tar archive whose members all have the same content, and return its path."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
