"""Tests of `seewhy.inputs.glob_patterns`: patterns match the same files as Python's `glob`."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seewhy import ImageError
from seewhy.inputs.image_inputs import Inputs
from support.files.input_files import found, in_order, names, put

MakeImage = Callable[..., Image.Image]


def matched(folder: Path, pattern: str) -> list[str]:
    return names(folder, found(f"{folder}/{pattern}"))


PATTERNS = (
    *(
        "*.jpg",
        "*",
        "**",
        "**/*",
        "**/*.png",
        "*/*.jpg",
        "**/b/**/*.jpg",
        "**/**/*.jpg",
        "a?/*",
        "[ab]*/*.png",
        "*.[jp]*",
    ),
    *(
        "a1/b/*.jpg",
        "*/b/x.jpg",
        "**/x.jpg",
        ".*/*.jpg",
        ".h/**/*.jpg",
        "a1/**",
        "*/../*.jpg",
        "[!a]*",
        "**/a2",
        "x[1].jpg",
    ),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_the_same_files_as_glob(tmp_path: Path, pattern: str) -> None:
    put(
        tmp_path,
        "x.jpg",
        "y.png",
        ".z.jpg",
        "a1/x.jpg",
        "a1/b/x.jpg",
        "a1/b/c/x.png",
        "a2/y.png",
        ".h/x.jpg",
        ".h/q/x.jpg",
    )
    put(tmp_path, "b/b/x.jpg", "n.txt", "x1.jpg", "a1/two\nlines.jpg", "a1/caf\udce9.jpg")
    expected = {path for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if path.endswith((".jpg", ".png"))}
    real = {os.path.realpath(path) for path in expected if os.path.isfile(path)}
    if not real:
        with pytest.raises(ImageError, match="no image matches the pattern"):
            matched(tmp_path, pattern)
        return
    inputs = found(f"{tmp_path}/{pattern}")
    assert [os.path.realpath(each.path) for each in inputs] == [
        os.path.realpath(path) for path in in_order([each.path for each in inputs])
    ]
    assert {os.path.realpath(each.path) for each in inputs} == real and len(inputs) == len(real)


def test_results_are_named_below_the_fixed_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "p/q/a.jpg", "p/r/s/b.jpg", "c.jpg"))
    assert [(each.path, each.name.as_posix()) for each in found("p/**/*.jpg")] == [
        ("p/q/a.jpg", "q/a"),
        ("p/r/s/b.jpg", "r/s/b"),
    ]
    assert [(each.path, each.name.as_posix()) for each in found("*.jpg")] == [("c.jpg", "c")]
    assert [each.name.as_posix() for each in found("./p/q/../q/?.jpg")] == ["a"]
    assert [each.path for each in found("**/*.jpg")] == ["c.jpg", "p/q/a.jpg", "p/r/s/b.jpg"]


def test_patterns_and_links(tmp_path: Path) -> None:
    """`*` follows links to folders. `**` does not, because links that lead back would never end."""
    put(tmp_path, "in/a/x.jpg", "far/y.jpg")
    for name in ("one", "two", "three"):
        (tmp_path / "in" / "a" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in" / "link").symlink_to("../far")
    assert matched(tmp_path, "in/**/*.jpg") == ["in/a/x.jpg"]
    assert matched(tmp_path, "in/*/*.jpg") == ["in/a/x.jpg", "in/link/y.jpg"]
    (tmp_path / "in" / "circle.jpg").symlink_to("circle.jpg")
    assert matched(tmp_path, "in/*.jpg") == ["in/circle.jpg"]


def test_patterns_skip_results(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "out/a.gradcam.jpg", "x.tar", "out/y.tar")
    inputs = Inputs([f"{tmp_path}/**/*"], tmp_path / "out")
    assert inputs.total is None and names(tmp_path, list(inputs))[0] == "a.jpg" and len(list(inputs)) == 2
