"""Tests of tar archives among the inputs of `seewhy.inputs.image_inputs`: each member has a unique name."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from seewhy import Explainer, explain_folder
from support.files.input_files import found, put, tar, written

MakeImage = Callable[..., Image.Image]


def test_members_are_named_after_their_archive(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(
        tar(("b/x.jpg", b"1"), ("a.jpg", b"2"), ("a.jpg", b"3"), ("../up.jpg", b"4"), ("/abs.jpg", b"5"))
    )
    inputs = found(tmp_path / "s.tar")
    assert [each.path.removeprefix(f"{tmp_path}/") for each in inputs] == [
        *("s.tar#b/x.jpg", "s.tar#a.jpg", "s.tar#a.jpg (2)", "s.tar#../up.jpg", "s.tar#/abs.jpg"),
    ]
    assert [each.name.as_posix() for each in inputs] == ["s/b/x", "s/a", "s/a.jpg", "s/%2E%2E/up", "s/abs"]
    assert [each.content for each in inputs] == [b"1", b"2", b"3", b"4", b"5"]


def test_members_with_absolute_names_stay_in_their_archives_folder(tmp_path: Path) -> None:
    members = ["/etc/x.jpg", "etc/x.jpg", "//etc//x.jpg", "///../y.jpg", "/manifest.jsonl/z.jpg"]
    for archive in ("s.tar", "t.tar"):
        (tmp_path / archive).write_bytes(tar(*((name, b"1") for name in members)))
    inputs = found(tmp_path / "s.tar", tmp_path / "t.tar")
    assert [each.path.partition("#")[2] for each in inputs] == 2 * members
    below = ["etc/x", "etc/x.jpg", "etc/x.jpg~2", "%2E%2E/y", "manifest.jsonl/z"]
    assert [each.name.as_posix() for each in inputs] == [f"{stem}/{name}" for stem in "st" for name in below]


def test_members_with_names_of_files(tmp_path: Path) -> None:
    """Each has its own key. Otherwise one would count as done when the other is."""
    (tmp_path / "s.tar").write_bytes(tar(("a.jpg", b"1"), ("b.jpg", b"2")))
    put(tmp_path, "s.tar#a.jpg")
    inputs = found(tmp_path / "s.tar", tmp_path)
    assert len({each.key for each in inputs}) == 3
    assert [each.path.rpartition("/")[2] for each in inputs] == [
        "s.tar#a.jpg (2)",
        "s.tar#b.jpg",
        "s.tar#a.jpg",
    ]


def test_members_with_equal_names_get_numbers(tmp_path: Path) -> None:
    """The name with a number may be taken, too."""
    (tmp_path / "s.tar").write_bytes(tar(*((name, b"") for name in ("a.jpg", "a.jpg", "a.jpg (2).jpg", "a.jpg"))))
    listed = written(tmp_path, f"{tmp_path}/s.tar#a.jpg (2)\n{tmp_path}/s.tar#a.jpg (4)\n", "list.txt")
    inputs = found(tmp_path / "s.tar", lists=(listed,))
    assert [each.path.rpartition("#")[2] for each in inputs] == [
        *("a.jpg", "a.jpg (3)", "a.jpg (2).jpg", "a.jpg (5)", "a.jpg (2)", "a.jpg (4)")
    ]
    assert len({each.key for each in inputs}) == 6
    put(tmp_path, "x#y.tar")
    assert [each.path for each in found(tmp_path / "x#y.tar")] == [f"{tmp_path}/x#y.tar"]


def test_archives_of_the_same_name(tmp_path: Path) -> None:
    for folder in "xy":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.tar").write_bytes(tar(("a.jpg", folder.encode())))
    inputs = found(tmp_path / "x" / "s.tar", tmp_path / "y" / "s.tar", tmp_path / "x" / ".." / "x" / "s.tar")
    assert [(each.content, each.name.as_posix()) for each in inputs] == [(b"x", "s/a"), (b"y", "s/a.jpg")]


def test_a_damaged_archive_is_one_failure(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    make_image().save(buffer, "PNG")
    files = [(f"{number}.png", buffer.getvalue()) for number in range(4)]
    content = tar(*files, ("bad.jpg", b"no image"))
    (tmp_path / "s.tar").write_bytes(content[: 2 * len(content) // 3])
    make_image().save(tmp_path / "after.png")
    summary = explain_folder(explainer, [tmp_path / "s.tar", tmp_path / "after.png"], tmp_path / "out")
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    statuses = [record["status"] for record in records]
    assert statuses == ["done"] * (len(records) - 2) + ["failed", "done"] and 3 < len(records) < 6
    assert records[-2]["path"] == f"{tmp_path}/s.tar" and "the members after it are lost" in records[-2]["error"]
