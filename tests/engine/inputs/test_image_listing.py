"""Tests of `seewhy.inputs.image_listing`: a path that is too long gives one error, and other images are explained."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy import Explainer, ImageError, explain_folder
from seewhy.bulk.pending_images import pending_images
from seewhy.inputs.image_inputs import Inputs
from support.files.input_files import with_name

MakeImage = Callable[..., Image.Image]

# The maximum length of a path on Linux is 4095 bytes.
LAST = 4090


def found(*paths: object) -> dict[str, Any]:
    """Return the inputs by their paths, and assert that paths and names are unique."""
    tasks = pending_images(Inputs([str(path) for path in paths], "/nowhere/out"))
    inputs = [with_name(task) for task in tasks]
    assert len({each.path for each in inputs}) == len({each.name for each in inputs}) == len(inputs)
    return {each.path: each for each in inputs}


@pytest.fixture
def tree(tmp_path: Path, make_image: MakeImage) -> Iterator[Path]:
    """Make a folder with images, and folders nested in it until their paths are too long.

    The last folder that can be listed has a path of 4090 bytes. It holds an image, a text file, links, and a folder in
    which all paths are too long. That folder holds an image and another folder.
    """
    root = tmp_path / "in"
    root.mkdir()
    make_image().save(root / "a.png")
    make_image().save(root / "z.png")
    here, length = os.open(root, os.O_RDONLY), len(os.fsencode(root))
    try:
        while length < LAST:
            # Leave at least two bytes for the last folder: a slash and one letter.
            name = "d" * min(200, LAST - length - 1 if LAST - length < 202 else LAST - length - 3)
            here, length = down(here, name), length + 1 + len(name)
        put(here, root, "image.png", "notes.txt")
        os.symlink("image.png", "link.png", dir_fd=here)
        os.symlink("deeper", "folder-link", dir_fd=here)
        here = down(here, "deeper")
        put(here, root, "lost.png")
        here = down(here, "more")
        put(here, root, "lost.png")
    finally:
        os.close(here)
    yield root
    subprocess.run(["rm", "-r", root], check=True)  # shutil.rmtree fails on long paths


def down(here: int, name: str) -> int:
    os.mkdir(name, dir_fd=here)
    inner = os.open(name, os.O_RDONLY, dir_fd=here)
    os.close(here)
    return inner


def put(here: int, root: Path, *names: str) -> None:
    for name in names:
        with open(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
            file.write((root / "a.png").read_bytes())


def last_folder(root: Path) -> str:
    """Return the path of the last folder that can be listed."""
    [last] = [folder for folder, _, files in os.walk(root) if "notes.txt" in files]
    assert len(os.fsencode(last)) == LAST
    return last


def check_too_long(folder: Any, path: str) -> None:
    text = str(folder.error)
    assert folder.path == path and text.startswith(f"{path}: ") and "\n" not in text
    assert f"has {len(os.fsencode(path))} bytes" in text and "change into a folder further down" in text


def test_a_folder_that_is_too_deep_is_one_input_with_an_error(tree: Path) -> None:
    last = last_folder(tree)
    inputs = found(tree)
    assert list(inputs) == [
        f"{tree}/a.png",
        *(f"{last}/{n}" for n in ("deeper", "image.png", "link.png")),
        f"{tree}/z.png",
    ]
    check_too_long(inputs.pop(f"{last}/deeper"), f"{last}/deeper")
    assert all(each.error is None for each in inputs.values())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.png", ["/a.png", "{}/deeper", "{}/image.png", "{}/link.png", "/z.png"]),
        ("**", ["/a.png", "{}/deeper", "{}/image.png", "{}/link.png", "/z.png"]),
        ("**/image.png", ["{}/deeper", "{}/image.png"]),
        ("**/none.png", ["{}/deeper"]),
        ("**/image.png/none.png", ["{}/deeper"]),
        ("**/*.png/**/*", ["{}/deeper"]),
        ("**/deeper/*.png", ["{}/deeper"]),
        ("**/folder-link/*.png", ["{}/deeper", "{}/folder-link"]),
    ],
)
def test_patterns_report_a_folder_that_is_too_deep(tree: Path, pattern: str, expected: list[str]) -> None:
    last = last_folder(tree).removeprefix(str(tree))
    expected = [f"{tree}{path.format(last)}" for path in expected]
    inputs = found(f"{tree}/{pattern}")
    assert list(inputs) == expected
    for path, each in inputs.items():
        if path.endswith(("deeper", "folder-link")):
            check_too_long(each, path)
        else:
            assert each.error is None


def test_patterns_in_the_last_folder(tree: Path) -> None:
    last = last_folder(tree)
    assert [path.removeprefix(last) for path in found(f"{last}/*")] == ["/image.png", "/link.png"]
    assert [path.removeprefix(last) for path in found(f"{last}/*/*")] == ["/deeper", "/folder-link"]
    assert [path.removeprefix(last) for path in found(f"{last}/*/lost.png")] == ["/deeper", "/folder-link"]
    with pytest.raises(ImageError, match="deeper: cannot be listed: File name too long"):
        found(f"{last}/deeper/*.png")
    with pytest.raises(ImageError, match="no image matches the pattern"):
        found(f"{last}/nothing/*.png")


def test_other_images_are_explained(tree: Path, explainer: Explainer, tmp_path: Path) -> None:
    last = last_folder(tree)
    summary = explain_folder(explainer, tree, tmp_path / "out")
    assert (summary.done, summary.failed) == (2, 3)
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert {record["path"].removeprefix(last): record["status"] for record in records} == {
        f"{tree}/a.png": "done",
        "/deeper": "failed",
        "/image.png": "failed",
        "/link.png": "failed",
        f"{tree}/z.png": "done",
    }
    assert all(record["error"].startswith(record["path"]) for record in records if record["status"] == "failed")
    assert records[2]["error"].endswith("image.png: cannot be read: File name too long")
    again = explain_folder(explainer, tree, tmp_path / "out")
    assert again.already_recorded == 5 and len(summary.manifest.read_text().splitlines()) == 5


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_other_images_are_explained_into_shards(form: str, tree: Path, explainer: Explainer, tmp_path: Path) -> None:
    from seewhy import Settings

    if form == "parquet":
        pytest.importorskip("pyarrow")
    summary = explain_folder(explainer, tree, tmp_path / "out", Settings(format=form))
    assert (summary.done, summary.failed) == (2, 3)


@pytest.mark.parametrize("name", ["x/" * 2500 + "a.png", "x" * 300 + ".png", "x/" * 2500 + "s.tar"])
def test_a_path_that_is_too_long_is_a_failed_image(name: str, explainer: Explainer, tmp_path: Path) -> None:
    summary = explain_folder(explainer, name, tmp_path / "out")
    [record] = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert record["path"] == name and record["error"] == f"{name}: cannot be read: File name too long"


@pytest.mark.parametrize("name", ["x/" * 5000 + "a.png", "x/" * 5000 + "*.png", "x/" * 5000])
def test_a_path_that_is_too_long_for_the_manifest(name: str) -> None:
    with pytest.raises(ImageError, match=r"^x/x.*\.\.\..*: the path has 1000\d bytes; the maximum is 8192$") as raised:
        found(name)
    assert len(str(raised.value)) < 200
