"""Tests of lists among the inputs of `seewhy.inputs.image_inputs`: order, duplicates, targets and standard input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from seewhy import Explainer, explain_folder
from seewhy.cli.main import main
from seewhy.targets.class_targets import read_target
from support.files.input_files import found, put, tar, written

MakeImage = Callable[..., Image.Image]


def test_lists_come_after_paths_in_their_order(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    listing = written(
        tmp_path,
        f"path,target,id\n{tmp_path}/c.jpg,1,x\n{tmp_path}/a.jpg,tabby,\n{tmp_path}/c.jpg,1,x\n{tmp_path}/c.jpg,2,x\n",
    )
    inputs = found(tmp_path / "a.jpg", lists=(listing,))
    assert [(*each.key[1:], Path(each.path).name) for each in inputs] == [
        (None, None, "a.jpg"),
        ("x", 1, "c.jpg"),
        (None, "tabby", "a.jpg"),
        ("x", 2, "c.jpg"),
    ]
    assert len({each.name for each in inputs}) == 4


def test_a_path_in_two_lists_counts_once(tmp_path: Path) -> None:
    one, two = (written(tmp_path, "b.jpg\na.jpg\nb.jpg\n./a.jpg\n", f"{n}.txt") for n in range(2))
    assert [each.path for each in found("a.jpg", lists=(one, two))] == ["a.jpg", "b.jpg"]


def test_entries_of_lists_that_are_not_images(tmp_path: Path) -> None:
    """A folder, a pattern or a device in a list is taken for an image, which fails. An archive is read."""
    put(tmp_path, "in/a.jpg")
    (tmp_path / "x.tar").write_bytes(tar(("m.jpg", b"1")))
    lines = [f"{tmp_path}/in", f"{tmp_path}/*.jpg", "/dev/zero", ".", "/", "..", "caf\udce9.jpg", f"{tmp_path}/x.tar"]
    inputs = found(lists=(written(tmp_path, "\n".join(lines), "list"),))
    assert [each.path for each in inputs] == [*lines[:-1], f"{tmp_path}/x.tar#m.jpg"]
    assert all(not each.name.is_absolute() and ".." not in each.name.parts for each in inputs)
    named = found(lists=(written(tmp_path, f"path,id\n{tmp_path}/x.tar,1\n"),))
    assert [each.path for each in named] == [f"{tmp_path}/x.tar"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("3", 3), ("-1", -1), ("007", 7), ("0", 0), ("9" * 19, int("9" * 19)), ("9" * 20, "9" * 20)),
        *(
            ("tabby", "tabby"),
            ("3.0", "3.0"),
            ("+3", "+3"),
            (" 3", " 3"),
            ("--3", "--3"),
            ("٣", "٣"),
            ("²", "²"),
            ("", ""),
        ),
    ],
)
def test_targets_as_they_are_written(text: str, expected: int | str) -> None:
    target = read_target(text)
    assert target == expected and type(target) is type(expected)


def test_targets_of_a_list(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    for name in "abcdef":
        make_image(seed=ord(name)).save(tmp_path / f"{name}.png")
    targets = ["3", "moped", "", "nonsense", "6", "-1"]
    lines = [f"{tmp_path}/{name}.png,{target}" for name, target in zip("abcdef", targets, strict=True)]
    listing = written(tmp_path, "path,target\n" + "\n".join(lines) + "\n")
    summary = explain_folder(explainer, [], tmp_path / "out", lists=[listing])
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert [record["status"] for record in records] == ["done"] * 3 + ["failed"] * 3
    assert [record["target"] for record in records] == [3, "moped", None, "nonsense", 6, -1]
    assert [record["explained"][0]["class"] for record in records[:2]] == [3, 3]
    assert records[2]["explained"][0]["class"] == records[2]["predicted"]["class"]
    for record, words in zip(
        records[3:], ("Unknown label 'nonsense'", "target 6 is out of range", "target -1"), strict=True
    ):
        assert words in record["error"] and record["error"].startswith(record["path"])


@pytest.mark.parametrize("arguments", [["-"], ["--list", "-"]])
@pytest.mark.parametrize("csv", [False, True])
def test_standard_input(
    model_path: Path, make_image: MakeImage, tmp_path: Path, arguments: list[str], csv: bool
) -> None:
    for name in "ab":
        make_image(seed=ord(name)).save(tmp_path / f"{name}.png")
    text = f"path,target\n{tmp_path}/b.png,2\n{tmp_path}/a.png,\n" if csv else f"{tmp_path}/b.png\n\n{tmp_path}/a.png\n"
    command = ["explain", str(model_path), *arguments, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command, input=text)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [(Path(record["path"]).name, record["target"]) for record in records] == [
        ("b.png", 2 if csv else None),
        ("a.png", None),
    ]
