"""Tests of `seewhy.inputs.image_inputs`: each image is found once, in order of arguments and path components."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seewhy import ArgumentError, Explainer, ImageError, OutputError, explain_folder
from seewhy.bulk.pending_images import pending_images
from seewhy.inputs.image_inputs import Inputs
from support import forked_cases
from support.files.input_files import found, in_order, names, put, tar

MakeImage = Callable[..., Image.Image]


# Folders.


def test_a_folder_is_sorted_by_components(tmp_path: Path) -> None:
    put(
        tmp_path, "b.jpg", "a/z.png", "a.jpg", "a-b/c.gif", "a/b/c.webp", "a b.jpg", "é.jpg", "Z.jpg", "a0.jpg", "a.tif"
    )
    expected = ["Z.jpg", "a/b/c.webp", "a/z.png", "a b.jpg", "a-b/c.gif", "a.jpg", "a.tif", "a0.jpg", "b.jpg", "é.jpg"]
    assert names(tmp_path, found(tmp_path)) == expected == in_order(expected)


component = st.text(st.sampled_from("ab. -0é\udcff\n"), min_size=1, max_size=4).filter(
    lambda text: text not in (".", "..")
)
trees = st.lists(st.lists(component, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8)


@given(trees)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_folder(tmp_path_factory: pytest.TempPathFactory, tree: list[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in tree:
        path = root / f"{name}.jpg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a file has the name of the folder
            continue
    files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    shown = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
    expected = in_order([name for name in shown if os.path.splitext(name)[1] == ".jpg"])
    if not expected:
        return
    inputs = found(root)
    assert names(root, inputs) == expected
    assert len({str(each.name).casefold() for each in inputs}) == len(inputs)


def test_other_files_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "notes.txt", "labels.csv", "jpg", ".jpg", "x.jpg.txt", "shard.tar", "B.JPEG")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "folder.jpg")
    assert names(tmp_path, found(tmp_path)) == ["B.JPEG", "a.jpg"]


def test_hidden_files_are_skipped_unless_they_are_named(tmp_path: Path) -> None:
    hidden = [".hidden.png", "._a.jpg", ".git/a.png", ".thumbnails/x/b.png", "__MACOSX/c.jpg", "in/.cache/d.jpg"]
    put(tmp_path, "a.jpg", "in/e.jpg", ".DS_Store", *hidden)
    assert names(tmp_path, found(tmp_path)) == ["a.jpg", "in/e.jpg"]
    assert names(tmp_path, found(tmp_path / "**" / "*.jpg")) == ["__MACOSX/c.jpg", "a.jpg", "in/e.jpg"]
    assert names(tmp_path, found(tmp_path / ".*.png")) == [".hidden.png"]
    assert names(tmp_path, found(tmp_path / ".git")) == [".git/a.png"]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(str(tmp_path / name) for name in hidden))
    assert (
        names(tmp_path, found(lists=(listed,)))
        == names(tmp_path, found(*(tmp_path / name for name in hidden)))
        == hidden
    )


def test_hidden_members_of_archives_are_skipped(tmp_path: Path) -> None:
    members = ["./a.jpg", "./._a.jpg", "__MACOSX/a.jpg", ".git/a.jpg", "in/.b.jpg", "in/b.jpg", "in/../c.jpg"]
    (tmp_path / "s.tar").write_bytes(tar(*((name, b"1") for name in members)))
    inputs = found(tmp_path / "s.tar")
    assert [each.path.partition("#")[2] for each in inputs] == ["./a.jpg", "in/b.jpg", "in/../c.jpg"]


def test_images_in_formats_that_cannot_be_decoded_fail_with_a_remedy(
    explainer: Explainer, make_image: MakeImage, tmp_path: Path
) -> None:
    put(tmp_path / "in", "b.CR2", "c.psd", "d.svg", "notes.txt", "e.json", "f.pdf")
    make_image().save(tmp_path / "in" / "a.png")
    summary = explain_folder(explainer, tmp_path / "in", tmp_path / "out")
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert [(Path(one["path"]).name, one["status"]) for one in records] == [
        *(("a.png", "done"), ("b.CR2", "failed"), ("c.psd", "failed"), ("d.svg", "failed"))
    ]
    for record, remedy in zip(records[1:], ("convert it to TIFF", "export it as PNG", "render it to PNG"), strict=True):
        assert remedy in record["error"]


def test_links(tmp_path: Path) -> None:
    """A linked file is listed once, under the first name. A loop or a dangling link is an image that cannot be read."""
    put(tmp_path / "in", "m/b.jpg")
    put(tmp_path, "elsewhere.png")
    folder = tmp_path / "in"
    (folder / "a.jpg").symlink_to("m/b.jpg")
    (folder / "z.jpg").symlink_to("m/b.jpg")
    (folder / "far.png").symlink_to("../elsewhere.png")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "ping.jpg").symlink_to("pong.jpg")
    (folder / "pong.jpg").symlink_to("ping.jpg")
    (folder / "nothing.jpg").symlink_to("none.jpg")
    (folder / "m" / "loop").symlink_to(folder)
    expected = ["a.jpg", "circle.jpg", "far.png", "nothing.jpg", "ping.jpg", "pong.jpg"]
    assert names(folder, found(folder)) == expected
    assert names(folder, found(folder / "m" / "b.jpg", folder)) == ["m/b.jpg", *expected[1:]]
    assert names(folder, found(folder, folder / "m" / "b.jpg")) == expected


def test_links_that_lead_nowhere_are_failures(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_image().save(folder / "a.png")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "nothing.jpg").symlink_to("none.jpg")
    summary = explain_folder(explainer, folder, tmp_path / "out")
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert [record["status"] for record in records] == ["done", "failed", "failed"]
    assert "symbolic links" in records[1]["error"] and "No such file" in records[2]["error"]


def test_links_to_folders_as_arguments(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.jpg", "out/r.png")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path, found(tmp_path / "link")) == ["link/a.jpg", "link/out/r.png"]
    assert names(tmp_path, found(tmp_path / "link", out=tmp_path / "real" / "out")) == ["link/a.jpg"]
    assert names(tmp_path, found(tmp_path / "real", out=tmp_path / "link" / "out")) == ["real/a.jpg"]
    with pytest.raises(OutputError, match="the output folder is also an input folder"):
        found(tmp_path / "link", out=tmp_path / "real")
    assert names(tmp_path, found(tmp_path / "link", tmp_path / "real")) == ["link/a.jpg", "link/out/r.png"]


def test_folders_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg")
    real = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for given_ in (tmp_path, tmp_path / "**" / "*.jpg", tmp_path / "lock*" / "*.jpg"):
        with pytest.raises(ImageError, match="locked: cannot be listed: Permission denied"):
            found(given_)
    assert names(tmp_path, found(tmp_path / "*.jpg")) == ["a.jpg"]


@pytest.mark.parametrize("pattern", ["*/in/*.jpg", "locked/*/*.jpg", "**/in/*.jpg", "*/*/*.jpg"])
def test_folders_that_cannot_be_entered(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be searched must not pass for an empty one."""
    put(tmp_path, "free/in/a.jpg", "locked/in/b.jpg")
    locked = str(tmp_path / "locked")
    stat, scandir = os.stat, os.scandir

    def refuse(path: Any, **how: Any) -> Any:
        if os.fspath(path).startswith(f"{locked}/"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, **how)

    def refuse_to_list(path: Any) -> Any:
        if os.fspath(path) == locked:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "scandir", refuse_to_list)
    with pytest.raises(ImageError, match=r"locked(/in)?: cannot be listed: Permission denied"):
        found(tmp_path / pattern)
    assert names(tmp_path, found(tmp_path / "free" / "*" / "*.jpg")) == ["free/in/a.jpg"]


def test_deep_folders(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1200):  # deeper than Python's recursion limit
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)
    try:
        [deep] = found(tmp_path)
        assert deep.path.count("/d") >= 1200 and found(tmp_path / "**" / "x.jpg")[0].path == deep.path
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil.rmtree cannot


# Arguments.


def test_arguments_keep_their_order(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.jpg", "in/z.jpg", "in/c.jpg")
    paths = ["b.jpg", "in", "a.jpg", "b.jpg", "./b.jpg", "in/../a.jpg", "in/z.jpg"]
    assert names(tmp_path, found(*(f"{tmp_path}/{path}" for path in paths))) == [
        "b.jpg",
        "in/c.jpg",
        "in/z.jpg",
        "a.jpg",
    ]


@pytest.mark.parametrize(
    "path", ["none.jpg", "none/", "none/none.tar", "x[1].jpg", "a\0b.jpg", "caf\udce9.jpg", "-", "notes.txt"]
)
def test_a_file_given_by_name_is_always_an_input(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "x[1].jpg")
    [one] = found(path)
    assert one.path == path and one.name.name


@pytest.mark.parametrize("name", ["loop", "loop/x", "a\0b"])
def test_impossible_names_of_the_output_folder(
    name: str, explainer: Explainer, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    make_image().save("a.png")
    with pytest.raises(ArgumentError if "\0" in name else OutputError):
        explain_folder(explainer, "a.png", name)


def test_an_empty_name_of_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable must not mean the current folder."""
    monkeypatch.chdir(put(tmp_path, "a.jpg"))
    with pytest.raises(OutputError, match=r"^the name of the output folder is empty; is a variable not set"):
        Inputs(["a.jpg"], folder="")


def test_results_do_not_become_inputs(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    """An input folder may be inside the output folder, but not where results will be written."""
    for folder in ("out/x/x", "out/y"):
        (tmp_path / folder).mkdir(parents=True)
        make_image().save(tmp_path / folder / "a.png")
    assert explain_folder(explainer, tmp_path / "out" / "y", tmp_path / "out").done == 1
    with pytest.raises(OutputError, match=r"out/x: results would be written into this input folder; choose another"):
        explain_folder(explainer, tmp_path / "out" / "x", tmp_path / "out")
    assert explain_folder(explainer, tmp_path / "out" / "x", tmp_path / "other").done == 1


def test_a_system_with_ascii_file_names(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("caf\u00e9.jpg\n", encoding="utf-8")
    words = [sys.executable, "-m", "seewhy", "explain", model_path, "--list", tmp_path / "list.txt", "-o", tmp_path]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, env=plain)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "is not a valid file name; file names are ascii here" in done.stderr


@pytest.mark.parametrize("path", ["", "a\ud800.jpg"])
def test_impossible_file_names(path: str) -> None:
    with pytest.raises(ImageError, match="is not a valid file name"):
        found(path)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images given"):
        found()
    with pytest.raises(ImageError, match="the folder holds no images"):
        found(tmp_path)
    with pytest.raises(ImageError, match=r"no image matches the pattern"):
        found(f"{tmp_path}/*.jpg")


def test_totals_and_files_below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "in/a.jpg", "in/b.jpg", "other/c.jpg", "x.tar")
    (tmp_path / "other" / "d.jpg").symlink_to("../in/b.jpg")
    inputs = Inputs(["in/a.jpg", "other"], "out")
    assert inputs.total == 3 and inputs.relative
    assert sorted(inputs.inside("in")) == [tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg"]
    assert not list(inputs.inside("i"))
    assert Inputs([tmp_path / "in", "x.tar"], "out").total is None
    assert not Inputs([tmp_path / "in"], "out").relative


def test_a_second_iteration_gives_the_same(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "a.png", "b/a.jpg")
    (tmp_path / "x.tar").write_bytes(tar(("a.jpg", b"1"), ("a.jpg", b"2")))
    inputs = Inputs([tmp_path, tmp_path / "x.tar"], "out")
    assert list(inputs) == list(inputs)
    assert list(pending_images(inputs)) == list(pending_images(inputs)) and len({each.key for each in inputs}) == 5


# Many images.


def list_many(case: dict[str, Any]) -> int:
    inputs = Inputs([], "/nowhere/out", [case["list"]])
    return sum(1 for _ in pending_images(inputs))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_names(tmp_path: Path) -> None:
    """The list of images is kept on disk: 200,000 names would take at least 30 MB as Python objects."""
    cases = []
    for count in (2_000, 200_000):
        path = tmp_path / f"{count}.txt"
        path.write_text(
            "".join(f"/photos/of/a/long/holiday/{number // 1000}/{number}.jpg\n" for number in range(count))
        )
        cases.append({"list": str(path)})
    few, many = forked_cases.run("engine.inputs.test_image_inputs:list_many", cases, seconds=200, wait=600)
    assert few.succeeded and many.succeeded and (few.result, many.result) == (2_000, 200_000)
    assert many.peak - few.peak < 25 << 20, (few.peak, many.peak)


# Output folders.


def test_results_beside_the_originals_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/deep/c.jpg")
    photos = tmp_path / "photos"
    (tmp_path / "link").symlink_to("photos")
    listed = tmp_path / "list.txt"
    listed.write_text("photos/a.jpg\n")
    monkeypatch.chdir(tmp_path)
    for out in (photos, tmp_path / "link"):
        for given_ in ("photos/a.jpg", "link/b.jpg", photos / "*.jpg"):
            with pytest.raises(OutputError, match="results would be written beside this image"):
                found(given_, out=out)
    with pytest.raises(OutputError, match="results would be written beside this image"):
        found(lists=(listed,), out=".")
    assert names(photos, found("photos/deep/c.jpg", out=photos)) == ["deep/c.jpg"]
    assert names(photos, found("photos/deep/*.jpg", out=photos)) == ["deep/c.jpg"]


def test_results_of_a_job_are_never_explained(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    make_image().save(photos / "a.png")
    out = photos / "results"
    for _ in range(2):
        assert explain_folder(explainer, photos, out).done == 1
    for given_ in (photos, photos / "**" / "*.png", out, out / "*.png"):
        with pytest.raises(OutputError, match="results: holds results of a job"):
            found(given_)
    assert names(photos, found(photos, out=out)) == ["a.png"]
