"""Tests of jobs with strange file names and file kinds: each image has its line, and nothing is written elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path, PurePath

import pytest

from seewhy import Explainer, ImageError, OutputError, explain_folder
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage.manifest_lines import encoded
from seewhy.storage.result_names import unique_names
from support import command_line
from support.jobs.broken_jobs import archive, contents, explained, lines

ODD = [
    "with space.png",
    " lead and trail .png",
    "new\nline.png",
    "carriage\rreturn.png",
    "tab\tand\x1b[31mred.png",
    "ünïcödé-日本語-🙂.png",
    "\u202egnp.exe.png",
    "back\\slash.png",
    "percent%0A.png",
    "#hash.png",
    "[1-9]?*.png",
    "-rf.png",
    "--output.png",
    "CON.png",
    "nul.tar.png",
    "a..png",
    ".png.png",
    "same.png",
    "same.webp",
    "SAME.jpg",
    "same.png.png",
    "x" * 251 + ".png",
    "é" * 125 + ".png",
    "x" * 250 + "y.png",
]


def test_odd_names(explainer: Explainer, place: Path, png: bytes) -> None:
    names = [os.fsencode(name) for name in ODD] + [b"not\xffutf8\xfe.png", b"caf\xe9.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(place / "in") + b"/" + name)).write_bytes(png)
    found = explained(explainer, place / "in", place)
    assert [os.fsencode(line["path"]) for line in found] == [
        os.fsencode(place / "in") + b"/" + name for name in sorted(names)
    ]
    assert all(line["status"] == "done" for line in found)
    text = (place / "out" / "manifest.jsonl").read_bytes()
    assert text.isascii() and len(text.splitlines()) == len(names)
    again = explain_folder(explainer, place / "in", place / "out")
    assert again.already_recorded == again.done == len(names)


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_odd_names_in_shards(form: str, model_path: Path, place: Path, png: bytes) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    for name in [b"not\xffutf8.png", "日本\n.png".encode()]:
        Path(os.fsdecode(os.fsencode(place / "in") + b"/" + name)).write_bytes(png)
    for before in (0, 2):
        result = command_line.run("explain", model_path, place / "in", "-o", place / "out", "--format", form)
        assert result.exit_code == 0 and ("2 of them in earlier" in result.stderr) == bool(before), result.stderr
    assert len(list((place / "out" / "shards").iterdir())) == 1


def test_links_in_circles(explainer: Explainer, place: Path, png: bytes) -> None:
    """Folders and images; by the folder's name and by patterns, which have to come to an end."""
    inside = place / "in"
    (inside / "deep").mkdir()
    (inside / "deep" / "a.png").write_bytes(png)
    for number in range(4):
        (inside / f"loop{number}").symlink_to(inside)
        (inside / "deep" / f"loop{number}").symlink_to("..")
    (inside / "self.png").symlink_to("self.png")
    (inside / "nowhere.png").symlink_to(place / "none")
    (inside / "there.png").symlink_to(inside / "back.png")
    (inside / "back.png").symlink_to(inside / "there.png")
    found = explained(explainer, inside, place)
    errors = {PurePath(line["path"]).name: line.get("error", "").partition(": ")[2] for line in found}
    circle = "cannot be read: Too many levels of symbolic links"
    assert errors.pop("nowhere.png") == "cannot be read: No such file or directory"
    assert errors.pop("a.png") == "" and set(errors.values()) == {circle} and "self.png" in errors
    for pattern in ("**/*.png", "*/*.png", "**"):
        listed = [item.path for item in Inputs([str(inside / pattern)], place / "other")]
        assert str(inside / "deep" / "a.png") in listed and len(listed) < 10


def test_patterns_find_what_globs_find(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import glob

    from seewhy.inputs.glob_patterns import matches

    for name in ["a.png", "b.jpg", ".hidden.png", "x/a.png", "x/y/b.png", "x/.h/c.png", ".h/d.png", "x[1]/e.png"]:
        (tmp_path / "g" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "g" / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in (
        *("g/*.png", "g/*", "g/**/*.png", "g/**/*", "g/**", "**/*.png", "g/*/*.png", "g/?/[a-b].png", "g/x*/e.png"),
        *("g/.*", "g/.*/*.png", "g/**/y/*.png", "g/[!a].*", "*/a.png", "g/x[[]1]/*.png", "none/*.png", "g/*/none.png"),
        *(f"{tmp_path}/g/*/a.png", "./g/*.png", "g/a.png/*", "../*/g/x/*.png"),
    ):
        expected = {os.path.normpath(path) for path in glob.glob(pattern, recursive=True)}
        assert {os.path.normpath(match.path) for match in matches(pattern)} | {"g"} == expected | {"g"}, pattern


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "socket"])
def test_files_of_other_kinds(kind: str, explainer: Explainer, place: Path, png: bytes) -> None:
    """A run that opened the pipe would wait for ever, and one that read the device would not end."""
    (place / "in" / "a.png").write_bytes(png)
    odd = place / "in" / "b.png"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    elif kind == "folder":
        odd.mkdir()
        (odd / "c.png").write_bytes(png)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            folder = os.open(place / "in", os.O_RDONLY)
            made.bind(f"/proc/self/fd/{folder}/b.png")
            os.close(folder)
    [good, other] = explained(explainer, place / "in", place)
    assert good["status"] == "done"
    if kind == "folder":
        assert [file["path"] for file in other["files"]] == ["b.png/c.gradcam.png"]
    else:
        assert other["error"] == f"{odd}: cannot be read: it is a {kind.replace('fifo', 'pipe')}, not a regular file"


EVIL = [
    "../escaped.png",
    "../../../../../../../../tmp/escaped.png",
    "/absolute.png",
    "//double.png",
    "a/../../b.png",
    "a/./b.png",
    "..",
    "../neighbour/file.png",
    "/dev/null.png",
    "C:\\windows\\x.png",
    "..\\..\\x.png",
    "CON/aux.png",
    "con.png",
    "~/x.png",
    "$HOME/x.png",
    "a\nb/c.png",
    "manifest.jsonl/x.png",
    "/manifest.jsonl/x.png",
    "/run.json/x.png",
    "/.seewhy-unfinished/x.png",
    "/.seewhy.lock/x.png",
    "/x.gradcam.png/x.png",
    "/x.png",
    "/X.png",
    "d/" * 1500 + "deep.png",
    "d/" * 1500 + "deeper.png",
    "long" * 60 + "/" + "long" * 60 + ".png",
    "/".join(["f" * 250] * 20) + "/x.png",
    "x.png",
    "x.png",
]


def test_evil_members_of_archives(explainer: Explainer, place: Path, png: bytes) -> None:
    names = [name for name in EVIL if name.endswith(".png")]
    path = archive(place / "in" / "evil.tar", names, png)
    with tarfile.open(path, "a") as tar:
        for kind, number in [(tarfile.SYMTYPE, 1), (tarfile.LNKTYPE, 2), (tarfile.CHRTYPE, 3), (tarfile.FIFOTYPE, 4)]:
            entry = tarfile.TarInfo(f"link{number}.png")
            entry.type, entry.linkname = kind, "../neighbour/file"
            tar.addfile(entry)
    found = explained(explainer, path, place)
    assert [line["status"] for line in found] == ["done"] * len(names) + ["failed"] * 4
    assert all("is a link or a device" in line["error"] for line in found[-4:])
    assert len({line["path"] for line in found}) == len(found)
    again = explain_folder(explainer, path, place / "out")
    assert again.already_recorded == len(found) == again.done + again.failed


def test_an_archive_called_as_a_run_s_own_files(explainer: Explainer, place: Path, png: bytes) -> None:
    paths = [
        archive(place / "in" / f"{name}.tar", ["a.png"], png)
        for name in ("manifest.jsonl", "run.json", ".seewhy-unfinished", "RUN.JSON", "..", "CON", "shards")
    ]
    found = explained(explainer, paths, place)
    assert [line["status"] for line in found] == ["done"] * len(paths)


def test_evil_lines_of_lists(model_path: Path, explainer: Explainer, place: Path, png: bytes) -> None:
    """Most of these files are not there; those that are come from outside the list's folder, and results do not."""
    (place / "real.png").write_bytes(png)
    listed = [name for name in EVIL if "\n" not in name] + [f"{place}/in/../real.png", str(place / "real.png")]
    (place / "in" / "list.txt").write_bytes(b"\n".join(map(os.fsencode, listed)))
    with (place / "in" / "list.csv").open("w", newline="") as file:
        import csv

        csv.writer(file).writerows([["path", "id"], *([name, f"../{name}"] for name in EVIL)])
    found = explained(explainer, [], place, lists=[place / "in" / "list.txt", place / "in" / "list.csv"])
    assert [line["path"] for line in found if line["status"] == "done"] == [f"{place}/in/../real.png"]
    assert len([line for line in found if line["id"]]) == len(EVIL) - 1  # one is there twice


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_other_kinds_of_files_in_lists(name: str, explainer: Explainer, place: Path, png: bytes) -> None:
    """Each is one failed line, and none is waited for."""
    (place / "in" / "a.png").write_bytes(png)
    os.mkfifo(place / "in" / "pipe.png")
    os.mkfifo(place / "in" / "pipe.tar")
    (place / "in" / "folder.tar").mkdir()
    odd = [f"{place}/in", f"{place}/in/pipe.png", f"{place}/in/pipe.tar", f"{place}/in/folder.tar", "/dev/zero"]
    listed = place / "in" / name
    listed.write_text("\n".join(["path"] * (name == "list.csv") + [f"{place}/in/a.png", *odd]))
    found = explained(explainer, [], place, lists=[listed])
    assert [line["path"] for line in found] == [f"{place}/in/a.png", *odd]
    assert [line["status"] for line in found] == ["done"] + ["failed"] * len(odd)
    assert all(line["error"].startswith(f"{line['path']}: ") for line in found[1:])


def test_bytes_that_are_no_text_in_lists(explainer: Explainer, place: Path, png: bytes) -> None:
    (place / "in" / "a.png").write_bytes(png)
    path = os.fsencode(place / "in" / "a.png")
    listed = place / "in" / "list.csv"
    listed.write_bytes(b"path,id,target\n" + path + b",,3\n" + path + b",,03\n" + path + b",,\n")
    for _ in range(2):
        explain_folder(explainer, [], place / "out", lists=[listed])
    assert [(line["target"], line["status"]) for line in lines(place / "out")] == [(3, "done"), (None, "done")]
    for number, row in enumerate([b",caf\xe9,", b",,esp\xff"]):
        listed.write_bytes(b"path,id,target\n" + path + row + b"\n")
        with pytest.raises(ImageError, match=r"list\.csv: the (id|target) in line 2 is not UTF-8"):
            explain_folder(explainer, [], place / f"refused{number}", lists=[listed])
        assert not (place / f"refused{number}").exists()


def test_a_file_called_as_a_member_is(explainer: Explainer, place: Path, png: bytes) -> None:
    """Each has a line of its own, also when the run goes on."""
    path = archive(place / "in" / "a.tar", ["m.png", "n.png"], png)
    (place / "in" / "a.tar#m.png").write_bytes(png)
    found = explained(explainer, [path, place / "in" / "a.tar#m.png"], place)
    assert [line["path"].partition("#")[2] for line in found] == ["m.png (2)", "n.png", "m.png"]
    assert explain_folder(explainer, [path, place / "in" / "a.tar#m.png"], place / "out").already_recorded == 3


def test_paths_without_a_last_component(explainer: Explainer, place: Path) -> None:
    found = explained(explainer, ["nope/", "nada/", f"{place}/none/.", "/"[:0] + "none/.."], place)
    assert [line["status"] for line in found] == ["failed"] * 4


def test_a_link_in_the_output_folder(explainer: Explainer, place: Path, png: bytes) -> None:
    """Somebody has put it there. Nothing is made where it leads, and no shard there is deleted."""
    (place / "in" / "sub" / "dir").mkdir(parents=True)
    (place / "in" / "sub" / "dir" / "a.png").write_bytes(png)
    (place / "out").mkdir()
    (place / "out" / "sub").symlink_to(place / "neighbour")
    before = contents(place / "neighbour")
    with pytest.raises(OutputError, match="lies outside the output folder"):
        explain_folder(explainer, place / "in", place / "out")
    assert contents(place / "neighbour") == before


@pytest.mark.parametrize("restart", [True, False])
def test_links_in_place_of_our_own_files(restart: bool, explainer: Explainer, place: Path, png: bytes) -> None:
    from seewhy import Settings

    (place / "in" / "a.png").write_bytes(png)
    (place / "neighbour" / "00000.npz").write_bytes(b"mine")
    before = contents(place / "neighbour")

    def run() -> None:
        explain_folder(explainer, place / "in", place / "out", Settings(format="npz"), restart=restart)

    for name, target in [
        ("shards", place / "neighbour"),
        (".seewhy.lock", place / "neighbour" / "file"),
        ("manifest.jsonl", place / "neighbour" / "file"),
    ]:
        (place / "out").mkdir()
        (place / "out" / name).symlink_to(target)
        with pytest.raises(OutputError):
            run()
        if restart and name == "manifest.jsonl":
            (place / "out" / "run.json").write_text('{"schema": 1, "versions": {"seewhy": "0"}}')
            run()  # the link itself is deleted
        assert contents(place / "neighbour") == before
        shutil.rmtree(place / "out")
    (place / "out").mkdir()
    (place / "out" / ".seewhy-unfinished").symlink_to(place / "neighbour")
    run()
    assert contents(place / "neighbour") == before


def test_a_link_in_place_of_the_manifest_of_a_run(explainer: Explainer, place: Path, png: bytes) -> None:
    (place / "in" / "a.png").write_bytes(png)
    explain_folder(explainer, place / "in", place / "out")
    for target in (place / "neighbour" / "file", place / "neighbour" / "none"):
        (place / "out" / "manifest.jsonl").unlink()
        (place / "out" / "manifest.jsonl").symlink_to(target)
        before = contents(place / "neighbour")
        with pytest.raises(OutputError, match="manifest.jsonl: cannot be opened: Too many levels of symbolic links"):
            explain_folder(explainer, place / "in", place / "out")
        assert contents(place / "neighbour") == before


@pytest.mark.parametrize("name", ["manifest.jsonl", "run.json", ".seewhy.lock"])
def test_pipes_in_place_of_our_own_files(name: str, explainer: Explainer, place: Path, png: bytes) -> None:
    """None is waited for."""
    (place / "in" / "a.png").write_bytes(png)
    (place / "out").mkdir()
    os.mkfifo(place / "out" / name)
    if name == ".seewhy.lock":
        explain_folder(explainer, place / "in", place / "out")
    else:
        what = "cannot be read: it is a pipe, not a regular file" if name == "run.json" else "not a file"
        with pytest.raises(OutputError, match=f"{re.escape(name)}: {what}; choose another output folder"):
            explain_folder(explainer, place / "in", place / "out")


def test_results_of_another_input_of_the_same_name_stay(explainer: Explainer, place: Path, png: bytes) -> None:
    """One run for a/x.png, then one for b/x.png, c/x.jpg and a folder of both, into the same folder."""
    for name in ("a/x.png", "b/x.png", "c/x.jpg"):
        (place / "in" / name).parent.mkdir()
        (place / "in" / name).write_bytes(png)
    for images in ("a", "b", "c", "."):
        explain_folder(explainer, place / "in" / images, place / "out")
    found = lines(place / "out")
    assert [[file["path"] for file in line["files"]] for line in found] == [
        ["x.gradcam.png"],
        ["x.png.gradcam.png"],
        ["x.jpg.gradcam.png"],
    ]


def test_names_do_not_depend_on_where_a_run_was_broken_off(explainer: Explainer, place: Path, png: bytes) -> None:
    images = []
    for number, name in enumerate(["x.png", "x.png", "x.jpg", "x.png", "x.png", "X.JPG"]):
        path = place / "in" / str(number) / name
        path.parent.mkdir()
        path.write_bytes(png if number not in (1, 3) else b"damaged")
        images.append(path)
    explained(explainer, images, place)
    expected = (place / "out" / "manifest.jsonl").read_bytes()
    facts = json.loads((place / "out" / "run.json").read_text())
    for count in range(len(images)):
        (place / "out" / "manifest.jsonl").write_bytes(b"".join(expected.splitlines(keepends=True)[:count]))
        # As a run leaves it that is killed: it counts at its beginning and at its end.
        (place / "out" / "run.json").write_text(json.dumps({**facts, "images": {"done": 0, "failed": 0}}))
        explain_folder(explainer, images, place / "out")
        assert (place / "out" / "manifest.jsonl").read_bytes() == expected


def test_a_job_resumes_whose_results_have_names_that_are_not_given_any_more(
    explainer: Explainer, place: Path, png: bytes
) -> None:
    """Such as `a?b`, which Windows does not allow."""
    for name in ("a?b.png", "a?b.webp", "a%3Fb.png"):
        (place / "in" / name).write_bytes(png)
    explained(explainer, place / "in" / "a?b.png", place)
    (place / "out" / "a%3Fb.gradcam.png").rename(place / "out" / "a?b.gradcam.png")
    [line] = lines(place / "out")
    del line["crc32"]
    line["files"] = [{"path": "a?b.gradcam.png", "bytes": 7, "sha256": "0" * 64}]
    (place / "out" / "manifest.jsonl").write_bytes(encoded(line))
    (place / "out" / "a?b.gradcam.png").write_bytes(b"earlier")
    summary = explain_folder(explainer, place / "in", place / "out")
    assert (summary.already_recorded, summary.done, summary.failed) == (1, 3, 0)
    assert [[file["path"] for file in line["files"]] for line in lines(place / "out")] == [
        ["a?b.gradcam.png"],
        ["a%3Fb.png.gradcam.png"],
        ["a%3Fb.webp.gradcam.png"],
    ]
    assert (place / "out" / "a?b.gradcam.png").read_bytes() == b"earlier"


def test_planned_names_are_short_and_apart() -> None:
    paths = [PurePath(name) for name in EVIL]
    names = unique_names(paths)
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.is_absolute() and ".." not in name.parts and len(name.parts) < 60
        assert len(str(name).encode()) < 2500 and all(len(part.encode()) < 200 for part in name.parts)
        assert str(name).isprintable()
