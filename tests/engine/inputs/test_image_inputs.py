"""Tests of `seewhy.inputs.image_inputs`: each image is found once, in order of arguments and path components."""

from __future__ import annotations

import glob
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seewhy import Explainer, ImageError, OutputError, explain_folder
from seewhy.bulk.pending_images import pending_images
from seewhy.cli.main import main
from seewhy.inputs.image_inputs import Input, Inputs
from seewhy.targets.class_targets import read_target
from support import forked_cases

Photo = Callable[..., Image.Image]


def put(folder: Path, *names: str) -> Path:
    """Files of these names, which nobody reads."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def found(*paths: object, lists: tuple[object, ...] = (), out: object = "/nowhere/out") -> list[Input]:
    inputs = Inputs([os.fspath(p) for p in paths], out, [os.fspath(p) for p in lists])  # type: ignore[call-overload]
    return list(pending_images(inputs))


def names(folder: Path, inputs: list[Input]) -> list[str]:
    return [os.path.relpath(each.path, folder) for each in inputs]


def in_order(paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: [os.fsencode(part) for part in PurePath(path).parts])


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
        except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a file where a folder has to be
            continue
    files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    there = in_order([name for name in files if os.path.splitext(name)[1] == ".jpg"])
    if not there:
        return
    inputs = found(root)
    assert names(root, inputs) == there
    assert len({str(each.name).casefold() for each in inputs}) == len(inputs)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "notes.txt", "jpg", ".jpg", "x.jpg.txt", "shard.tar", ".hidden.png", ".git/a.png", "B.JPEG")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "folder.jpg")
    assert names(tmp_path, found(tmp_path)) == [".git/a.png", ".hidden.png", "B.JPEG", "a.jpg"]


def test_links(tmp_path: Path) -> None:
    """To a file: once, under its first name in order. In circles, or to nothing: an image that cannot be read."""
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


def test_links_that_lead_nowhere_are_failures(explainer: Explainer, photo: Photo, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo().save(folder / "a.png")
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
    with pytest.raises(OutputError, match="the output folder is an input folder too"):
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
    """They look as if nothing were there, unless one asks why."""
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
        for _ in range(1200):  # beyond what recursion could do
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
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # which Python's own tools do not do


# Arguments.


def test_arguments_come_in_their_order(tmp_path: Path) -> None:
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
def test_files_named_are_inputs_whatever_they_are(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "x[1].jpg")
    [one] = found(path)
    assert one.path == path and one.name.name


@pytest.mark.parametrize("name", ["loop", "loop/x", "a\0b"])
def test_names_that_no_output_folder_can_have(
    name: str, explainer: Explainer, photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    photo().save("a.png")
    with pytest.raises(OutputError):
        explain_folder(explainer, "a.png", name)


def test_the_output_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable must not stand for the current folder."""
    monkeypatch.chdir(put(tmp_path, "a.jpg"))
    with pytest.raises(OutputError, match=r"^the name of the output folder is empty; name a folder \(an unset"):
        Inputs(["a.jpg"], folder="")


def test_results_do_not_become_inputs(explainer: Explainer, photo: Photo, tmp_path: Path) -> None:
    """An input folder may lie in the output folder, but not where results will."""
    for folder in ("out/x/x", "out/y"):
        (tmp_path / folder).mkdir(parents=True)
        photo().save(tmp_path / folder / "a.png")
    assert explain_folder(explainer, tmp_path / "out" / "y", tmp_path / "out").done == 1
    with pytest.raises(OutputError, match=r"out/x: results would lie in this input folder, below .*out; choose anot"):
        explain_folder(explainer, tmp_path / "out" / "x", tmp_path / "out")
    assert explain_folder(explainer, tmp_path / "out" / "x", tmp_path / "other").done == 1


def test_a_system_whose_names_are_not_utf_8(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("caf\u00e9.jpg\n", encoding="utf-8")
    words = [sys.executable, "-m", "seewhy", "explain", model_path, "--list", tmp_path / "list.txt", "-o", tmp_path]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, env=plain)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "is not a name that a file can have; file names are ascii here" in done.stderr


@pytest.mark.parametrize("path", ["", "a\ud800.jpg"])
def test_names_that_no_file_can_have(path: str) -> None:
    with pytest.raises(ImageError, match="is not a name that a file can have"):
        found(path)


def test_nothing_given(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images given"):
        found()
    with pytest.raises(ImageError, match="the folder holds no images"):
        found(tmp_path)
    with pytest.raises(ImageError, match=r"no image matches the pattern"):
        found(f"{tmp_path}/*.jpg")


def test_totals_and_what_lies_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "in/a.jpg", "in/b.jpg", "other/c.jpg", "x.tar")
    (tmp_path / "other" / "d.jpg").symlink_to("../in/b.jpg")
    inputs = Inputs(["in/a.jpg", "other"], "out")
    assert inputs.total == 3 and inputs.relative
    assert sorted(inputs.inside("in")) == [tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg"]
    assert not list(inputs.inside("i"))
    assert Inputs([tmp_path / "in", "x.tar"], "out").total is None
    assert not Inputs([tmp_path / "in"], "out").relative


def test_twice_over_gives_the_same(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "a.png", "b/a.jpg")
    (tmp_path / "x.tar").write_bytes(tar(("a.jpg", b"1"), ("a.jpg", b"2")))
    inputs = Inputs([tmp_path, tmp_path / "x.tar"], "out")
    assert list(inputs) == list(inputs)
    assert list(pending_images(inputs)) == list(pending_images(inputs)) and len({each.key for each in inputs}) == 5


# Patterns.


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
def test_patterns_match_what_glob_matches(tmp_path: Path, pattern: str) -> None:
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


def test_relative_patterns_name_results_behind_what_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "p/q/a.jpg", "p/r/s/b.jpg", "c.jpg"))
    assert [(each.path, each.name.as_posix()) for each in found("p/**/*.jpg")] == [
        ("p/q/a.jpg", "q/a"),
        ("p/r/s/b.jpg", "r/s/b"),
    ]
    assert [(each.path, each.name.as_posix()) for each in found("*.jpg")] == [("c.jpg", "c")]
    assert [each.name.as_posix() for each in found("./p/q/../q/?.jpg")] == ["a"]
    assert [each.path for each in found("**/*.jpg")] == ["c.jpg", "p/q/a.jpg", "p/r/s/b.jpg"]


def test_patterns_and_links(tmp_path: Path) -> None:
    """`*` follows a link to a folder; `**` does not, or two that lead back would take for ever."""
    put(tmp_path, "in/a/x.jpg", "far/y.jpg")
    for name in ("one", "two", "three"):
        (tmp_path / "in" / "a" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in" / "link").symlink_to("../far")
    assert matched(tmp_path, "in/**/*.jpg") == ["in/a/x.jpg"]
    assert matched(tmp_path, "in/*/*.jpg") == ["in/a/x.jpg", "in/link/y.jpg"]
    (tmp_path / "in" / "circle.jpg").symlink_to("circle.jpg")
    assert matched(tmp_path, "in/*.jpg") == ["in/circle.jpg"]


def test_patterns_leave_results_out(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "out/a.gradcam.jpg", "x.tar", "out/y.tar")
    inputs = Inputs([f"{tmp_path}/**/*"], tmp_path / "out")
    assert inputs.total is None and names(tmp_path, list(inputs))[0] == "a.jpg" and len(list(inputs)) == 2


# Lists.


def written(folder: Path, content: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return path


def test_lists_come_behind_paths_and_in_their_order(tmp_path: Path) -> None:
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


def test_what_lists_may_name(tmp_path: Path) -> None:
    """A folder, a pattern or a device in a list is a name like others, and fails as an image; an archive is read."""
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
    found_ = read_target(text)
    assert found_ == expected and type(found_) is type(expected)


def test_targets_of_a_list(explainer: Explainer, photo: Photo, tmp_path: Path) -> None:
    for name in "abcdef":
        photo(seed=ord(name)).save(tmp_path / f"{name}.png")
    targets = ["3", "moped", "", "nonsense", "6", "-1"]
    lines = [f"{tmp_path}/{name}.png,{target}" for name, target in zip("abcdef", targets, strict=True)]
    listing = written(tmp_path, "path,target\n" + "\n".join(lines) + "\n")
    summary = explain_folder(explainer, [], tmp_path / "out", lists=[listing])
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert [record["status"] for record in records] == ["done"] * 3 + ["failed"] * 3
    assert [record["asked"] for record in records] == [3, "moped", None, "nonsense", 6, -1]
    assert [record["explained"][0]["class"] for record in records[:2]] == [3, 3]
    assert records[2]["explained"][0]["class"] == records[2]["predicted"]["class"]
    for record, words in zip(
        records[3:], ("no label 'nonsense'", "target 6 is out of range", "target -1"), strict=True
    ):
        assert words in record["error"] and record["error"].startswith(record["path"])


@pytest.mark.parametrize("arguments", [["-"], ["--list", "-"]])
@pytest.mark.parametrize("csv", [False, True])
def test_standard_input(model_path: Path, photo: Photo, tmp_path: Path, arguments: list[str], csv: bool) -> None:
    for name in "ab":
        photo(seed=ord(name)).save(tmp_path / f"{name}.png")
    text = f"path,target\n{tmp_path}/b.png,2\n{tmp_path}/a.png,\n" if csv else f"{tmp_path}/b.png\n\n{tmp_path}/a.png\n"
    command = ["explain", str(model_path), *arguments, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command, input=text)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [(Path(record["path"]).name, record["asked"]) for record in records] == [
        ("b.png", 2 if csv else None),
        ("a.png", None),
    ]


# Archives.


def tar(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


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


def test_members_with_absolute_names_lie_in_their_archives_folder(tmp_path: Path) -> None:
    members = ["/etc/x.jpg", "etc/x.jpg", "//etc//x.jpg", "///../y.jpg", "/.jpg.jpg", "/manifest.jsonl/z.jpg"]
    for archive in ("s.tar", "t.tar"):
        (tmp_path / archive).write_bytes(tar(*((name, b"1") for name in members)))
    inputs = found(tmp_path / "s.tar", tmp_path / "t.tar")
    assert [each.path.partition("#")[2] for each in inputs] == 2 * members
    below = ["etc/x", "etc/x.jpg", "etc/x.jpg~2", "%2E%2E/y", ".jpg", "manifest.jsonl/z"]
    assert [each.name.as_posix() for each in inputs] == [f"{stem}/{name}" for stem in "st" for name in below]


def test_members_called_like_files(tmp_path: Path) -> None:
    """Each has a key of its own, or one would count as done when the other is."""
    (tmp_path / "s.tar").write_bytes(tar(("a.jpg", b"1"), ("b.jpg", b"2")))
    put(tmp_path, "s.tar#a.jpg")
    inputs = found(tmp_path / "s.tar", tmp_path)
    assert len({each.key for each in inputs}) == 3
    assert [each.path.rpartition("/")[2] for each in inputs] == [
        "s.tar#a.jpg (2)",
        "s.tar#b.jpg",
        "s.tar#a.jpg",
    ]


def test_members_called_as_others_are_told_apart(tmp_path: Path) -> None:
    """The number that tells two members apart may make a name that is in use, too."""
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


def test_a_damaged_archive_is_a_failure_of_its_own(explainer: Explainer, photo: Photo, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    photo().save(buffer, "PNG")
    files = [(f"{number}.png", buffer.getvalue()) for number in range(4)]
    content = tar(*files, ("bad.jpg", b"no image"))
    (tmp_path / "s.tar").write_bytes(content[: 2 * len(content) // 3])
    photo().save(tmp_path / "after.png")
    summary = explain_folder(explainer, [tmp_path / "s.tar", tmp_path / "after.png"], tmp_path / "out")
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    statuses = [record["status"] for record in records]
    assert statuses == ["done"] * (len(records) - 2) + ["failed", "done"] and 3 < len(records) < 6
    assert records[-2]["path"] == f"{tmp_path}/s.tar" and "what follows is lost" in records[-2]["error"]


# A great many.


def list_many(case: dict[str, Any]) -> int:
    inputs = Inputs([], "/nowhere/out", [case["list"]])
    return sum(1 for _ in pending_images(inputs))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_names(tmp_path: Path) -> None:
    """Names of 200,000 images take 30 MB and more as Python objects."""
    cases = []
    for count in (2_000, 200_000):
        path = tmp_path / f"{count}.txt"
        path.write_text(
            "".join(f"/photos/of/a/long/holiday/{number // 1000}/{number}.jpg\n" for number in range(count))
        )
        cases.append({"list": str(path)})
    few, many = forked_cases.run("engine.inputs.test_image_inputs:list_many", cases, seconds=200, wait=600)
    assert few.well and many.well and (few.result, many.result) == (2_000, 200_000)
    assert many.peak - few.peak < 25 << 20, (few.peak, many.peak)
