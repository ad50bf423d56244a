"""Tests of jobs with unusual file names and file types: each image has a line, and nothing is written elsewhere."""

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
from support.jobs.broken_jobs import archive, contents, explain_and_check, lines

UNUSUAL = [
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


def test_the_log_escapes_names(explainer: Explainer, sandbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["tab\tand\x1b[31mred.png", "new\nline.png", "\u202egnp.exe.png", "caf\udce9.png"]
    for name in names:
        (sandbox / "in" / name).write_bytes(b"not an image")
    assert explain_folder(explainer, sandbox / "in", sandbox / "out").failed == len(names)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == len(names) and all(text.isprintable() for text in logged)


def test_unusual_names(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    names = [os.fsencode(name) for name in UNUSUAL] + [b"not\xffutf8\xfe.png", b"caf\xe9.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(sandbox / "in") + b"/" + name)).write_bytes(png)
    # A folder skips hidden files, so this one is named.
    images = [sandbox / "in", sandbox / "in" / ".png.png"]
    found = explain_and_check(explainer, images, sandbox)
    assert [os.fsencode(line["path"]) for line in found] == [
        os.fsencode(sandbox / "in") + b"/" + name for name in [*sorted({*names} - {b".png.png"}), b".png.png"]
    ]
    assert all(line["status"] == "done" for line in found)
    text = (sandbox / "out" / "manifest.jsonl").read_bytes()
    assert text.isascii() and len(text.splitlines()) == len(names)
    again = explain_folder(explainer, images, sandbox / "out")
    assert again.already_recorded == again.done == len(names)


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_unusual_names_in_shards(form: str, model_path: Path, sandbox: Path, png: bytes) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    for name in [b"not\xffutf8.png", "日本\n.png".encode()]:
        Path(os.fsdecode(os.fsencode(sandbox / "in") + b"/" + name)).write_bytes(png)
    for before in (0, 2):
        result = command_line.run("explain", model_path, sandbox / "in", "-o", sandbox / "out", "--format", form)
        assert result.exit_code == 0 and ("2 of the images in earlier" in result.stderr) == bool(before), result.stderr
    assert len(list((sandbox / "out" / "shards").iterdir())) == 1


def test_links_in_circles(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Circular links of folders and images, in folder inputs and in patterns, which must terminate."""
    inputs = sandbox / "in"
    (inputs / "deep").mkdir()
    (inputs / "deep" / "a.png").write_bytes(png)
    for number in range(4):
        (inputs / f"loop{number}").symlink_to(inputs)
        (inputs / "deep" / f"loop{number}").symlink_to("..")
    (inputs / "self.png").symlink_to("self.png")
    (inputs / "nowhere.png").symlink_to(sandbox / "none")
    (inputs / "there.png").symlink_to(inputs / "back.png")
    (inputs / "back.png").symlink_to(inputs / "there.png")
    found = explain_and_check(explainer, inputs, sandbox)
    errors = {PurePath(line["path"]).name: line.get("error", "").partition(": ")[2] for line in found}
    loop_error = "cannot be read: Too many levels of symbolic links"
    assert errors.pop("nowhere.png") == "cannot be read: No such file or directory"
    assert errors.pop("a.png") == "" and set(errors.values()) == {loop_error} and "self.png" in errors
    for pattern in ("**/*.png", "*/*.png", "**"):
        listed = [item.path for item in Inputs([str(inputs / pattern)], sandbox / "other")]
        assert str(inputs / "deep" / "a.png") in listed and len(listed) < 10


def test_patterns_match_like_glob(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_files_of_other_types(kind: str, explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Opening the pipe would block forever, and reading the device would never end."""
    (sandbox / "in" / "a.png").write_bytes(png)
    other_file = sandbox / "in" / "b.png"
    if kind == "fifo":
        os.mkfifo(other_file)
    elif kind == "device":
        other_file.symlink_to("/dev/zero")
    elif kind == "folder":
        other_file.mkdir()
        (other_file / "c.png").write_bytes(png)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            folder = os.open(sandbox / "in", os.O_RDONLY)
            made.bind(f"/proc/self/fd/{folder}/b.png")
            os.close(folder)
    [good, other] = explain_and_check(explainer, sandbox / "in", sandbox)
    assert good["status"] == "done"
    if kind == "folder":
        assert [file["path"] for file in other["files"]] == ["b.png/c.gradcam.png"]
    else:
        assert (
            other["error"]
            == f"{other_file}: cannot be read: it is a {kind.replace('fifo', 'pipe')}, not a regular file"
        )


HOSTILE = [
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


def test_hostile_members_of_archives(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    names = [name for name in HOSTILE if name.endswith(".png")]
    path = archive(sandbox / "in" / "hostile.tar", names, png)
    with tarfile.open(path, "a") as tar:
        for kind, number in [(tarfile.SYMTYPE, 1), (tarfile.LNKTYPE, 2), (tarfile.CHRTYPE, 3), (tarfile.FIFOTYPE, 4)]:
            entry = tarfile.TarInfo(f"link{number}.png")
            entry.type, entry.linkname = kind, "../neighbour/file"
            tar.addfile(entry)
    found = explain_and_check(explainer, path, sandbox)
    hidden = ["/.seewhy-unfinished/x.png", "/.seewhy.lock/x.png", "..\\..\\x.png"]
    assert set(hidden) < set(names)
    assert [line["status"] for line in found] == ["done"] * (len(names) - len(hidden)) + ["failed"] * 4
    assert all("is a link or a device" in line["error"] for line in found[-4:])
    assert len({line["path"] for line in found}) == len(found)
    again = explain_folder(explainer, path, sandbox / "out")
    assert again.already_recorded == len(found) == again.done + again.failed


def test_archives_named_like_files_of_the_job(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    paths = [
        archive(sandbox / "in" / f"{name}.tar", ["a.png"], png)
        for name in ("manifest.jsonl", "run.json", ".seewhy-unfinished", "RUN.JSON", "..", "CON", "shards")
    ]
    found = explain_and_check(explainer, paths, sandbox)
    assert [line["status"] for line in found] == ["done"] * len(paths)


def test_hostile_lines_of_lists(model_path: Path, explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Most of these files do not exist. Images may lie outside the list's folder, but results may not."""
    (sandbox / "real.png").write_bytes(png)
    listed = [name for name in HOSTILE if "\n" not in name] + [f"{sandbox}/in/../real.png", str(sandbox / "real.png")]
    (sandbox / "in" / "list.txt").write_bytes(b"\n".join(map(os.fsencode, listed)))
    with (sandbox / "in" / "list.csv").open("w", newline="") as file:
        import csv

        csv.writer(file).writerows([["path", "id"], *([name, f"../{name}"] for name in HOSTILE)])
    found = explain_and_check(explainer, [], sandbox, lists=[sandbox / "in" / "list.txt", sandbox / "in" / "list.csv"])
    assert [line["path"] for line in found if line["status"] == "done"] == [f"{sandbox}/in/../real.png"]
    assert len([line for line in found if line["id"]]) == len(HOSTILE) - 1  # one ID occurs twice


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_other_file_types_in_lists(name: str, explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Each is one failed line, and the job waits for none of them."""
    (sandbox / "in" / "a.png").write_bytes(png)
    os.mkfifo(sandbox / "in" / "pipe.png")
    os.mkfifo(sandbox / "in" / "pipe.tar")
    (sandbox / "in" / "folder.tar").mkdir()
    other_files = [
        f"{sandbox}/in",
        f"{sandbox}/in/pipe.png",
        f"{sandbox}/in/pipe.tar",
        f"{sandbox}/in/folder.tar",
        "/dev/zero",
    ]
    listed = sandbox / "in" / name
    listed.write_text("\n".join(["path"] * (name == "list.csv") + [f"{sandbox}/in/a.png", *other_files]))
    found = explain_and_check(explainer, [], sandbox, lists=[listed])
    assert [line["path"] for line in found] == [f"{sandbox}/in/a.png", *other_files]
    assert [line["status"] for line in found] == ["done"] + ["failed"] * len(other_files)
    assert all(line["error"].startswith(f"{line['path']}: ") for line in found[1:])


def test_bytes_that_are_not_utf8_in_lists(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    (sandbox / "in" / "a.png").write_bytes(png)
    path = os.fsencode(sandbox / "in" / "a.png")
    listed = sandbox / "in" / "list.csv"
    listed.write_bytes(b"path,id,target\n" + path + b",,3\n" + path + b",,03\n" + path + b",,\n")
    for _ in range(2):
        explain_folder(explainer, [], sandbox / "out", lists=[listed])
    assert [(line["target"], line["status"]) for line in lines(sandbox / "out")] == [(3, "done"), (None, "done")]
    for number, row in enumerate([b",caf\xe9,", b",,esp\xff"]):
        listed.write_bytes(b"path,id,target\n" + path + row + b"\n")
        with pytest.raises(ImageError, match=r"list\.csv: the (id|target) in line 2 is not UTF-8"):
            explain_folder(explainer, [], sandbox / f"refused{number}", lists=[listed])
        assert not (sandbox / f"refused{number}").exists()


def test_a_file_named_like_an_archive_member(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Each has its own line, also after a resume."""
    path = archive(sandbox / "in" / "a.tar", ["m.png", "n.png"], png)
    (sandbox / "in" / "a.tar#m.png").write_bytes(png)
    found = explain_and_check(explainer, [path, sandbox / "in" / "a.tar#m.png"], sandbox)
    assert [line["path"].partition("#")[2] for line in found] == ["m.png (2)", "n.png", "m.png"]
    assert explain_folder(explainer, [path, sandbox / "in" / "a.tar#m.png"], sandbox / "out").already_recorded == 3


def test_paths_without_a_last_component(explainer: Explainer, sandbox: Path) -> None:
    found = explain_and_check(explainer, ["nope/", "nada/", f"{sandbox}/none/.", "/"[:0] + "none/.."], sandbox)
    assert [line["status"] for line in found] == ["failed"] * 4


def test_a_link_in_the_output_folder(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """The job writes and deletes nothing in the folder that the link points to."""
    (sandbox / "in" / "sub" / "dir").mkdir(parents=True)
    (sandbox / "in" / "sub" / "dir" / "a.png").write_bytes(png)
    (sandbox / "out").mkdir()
    (sandbox / "out" / "sub").symlink_to(sandbox / "neighbour")
    before = contents(sandbox / "neighbour")
    with pytest.raises(OutputError, match="is outside the output folder"):
        explain_folder(explainer, sandbox / "in", sandbox / "out")
    assert contents(sandbox / "neighbour") == before


@pytest.mark.parametrize("restart", [True, False])
def test_links_in_place_of_files_of_the_job(restart: bool, explainer: Explainer, sandbox: Path, png: bytes) -> None:
    from seewhy import Settings

    (sandbox / "in" / "a.png").write_bytes(png)
    (sandbox / "neighbour" / "00000.npz").write_bytes(b"mine")
    before = contents(sandbox / "neighbour")

    def run() -> None:
        explain_folder(explainer, sandbox / "in", sandbox / "out", Settings(format="npz"), restart=restart)

    for name, target in [
        ("shards", sandbox / "neighbour"),
        (".seewhy.lock", sandbox / "neighbour" / "file"),
        ("manifest.jsonl", sandbox / "neighbour" / "file"),
    ]:
        (sandbox / "out").mkdir()
        (sandbox / "out" / name).symlink_to(target)
        with pytest.raises(OutputError):
            run()
        if restart and name == "manifest.jsonl":
            (sandbox / "out" / "run.json").write_text('{"schema": 1, "versions": {"seewhy": "0"}}')
            run()  # deletes the link, not its target
        assert contents(sandbox / "neighbour") == before
        shutil.rmtree(sandbox / "out")
    (sandbox / "out").mkdir()
    (sandbox / "out" / ".seewhy-unfinished").symlink_to(sandbox / "neighbour")
    run()
    assert contents(sandbox / "neighbour") == before


def test_a_link_in_place_of_an_existing_manifest(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    (sandbox / "in" / "a.png").write_bytes(png)
    explain_folder(explainer, sandbox / "in", sandbox / "out")
    for target in (sandbox / "neighbour" / "file", sandbox / "neighbour" / "none"):
        (sandbox / "out" / "manifest.jsonl").unlink()
        (sandbox / "out" / "manifest.jsonl").symlink_to(target)
        before = contents(sandbox / "neighbour")
        with pytest.raises(OutputError, match="manifest.jsonl: cannot be opened: Too many levels of symbolic links"):
            explain_folder(explainer, sandbox / "in", sandbox / "out")
        assert contents(sandbox / "neighbour") == before


@pytest.mark.parametrize("name", ["manifest.jsonl", "run.json", ".seewhy.lock"])
def test_pipes_in_place_of_files_of_the_job(name: str, explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """The job does not wait for the pipe."""
    (sandbox / "in" / "a.png").write_bytes(png)
    (sandbox / "out").mkdir()
    os.mkfifo(sandbox / "out" / name)
    if name == ".seewhy.lock":
        explain_folder(explainer, sandbox / "in", sandbox / "out")
    else:
        reason = "cannot be read: it is a pipe, not a regular file" if name == "run.json" else "is not a file"
        with pytest.raises(OutputError, match=f"{re.escape(name)}: {reason}; choose another output folder"):
            explain_folder(explainer, sandbox / "in", sandbox / "out")


def test_results_of_another_input_of_the_same_name_stay(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Jobs for a/x.png, b/x.png, c/x.jpg and all of them write into the same output folder."""
    for name in ("a/x.png", "b/x.png", "c/x.jpg"):
        (sandbox / "in" / name).parent.mkdir()
        (sandbox / "in" / name).write_bytes(png)
    for images in ("a", "b", "c", "."):
        explain_folder(explainer, sandbox / "in" / images, sandbox / "out")
    found = lines(sandbox / "out")
    assert [[file["path"] for file in line["files"]] for line in found] == [
        ["x.gradcam.png"],
        ["x.png.gradcam.png"],
        ["x.jpg.gradcam.png"],
    ]


def test_result_names_do_not_depend_on_interruptions(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    images = []
    for number, name in enumerate(["x.png", "x.png", "x.jpg", "x.png", "x.png", "X.JPG"]):
        path = sandbox / "in" / str(number) / name
        path.parent.mkdir()
        path.write_bytes(png if number not in (1, 3) else b"damaged")
        images.append(path)
    explain_and_check(explainer, images, sandbox)
    expected = (sandbox / "out" / "manifest.jsonl").read_bytes()
    facts = json.loads((sandbox / "out" / "run.json").read_text())
    for count in range(len(images)):
        (sandbox / "out" / "manifest.jsonl").write_bytes(b"".join(expected.splitlines(keepends=True)[:count]))
        # A killed job leaves these counts: it writes them only at its start and at its end.
        (sandbox / "out" / "run.json").write_text(json.dumps({**facts, "images": {"done": 0, "failed": 0}}))
        explain_folder(explainer, images, sandbox / "out")
        assert (sandbox / "out" / "manifest.jsonl").read_bytes() == expected


def test_resume_with_result_names_of_an_earlier_version(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    """Earlier versions used names such as `a?b`, which Windows does not allow."""
    for name in ("a?b.png", "a?b.webp", "a%3Fb.png"):
        (sandbox / "in" / name).write_bytes(png)
    explain_and_check(explainer, sandbox / "in" / "a?b.png", sandbox)
    (sandbox / "out" / "a%3Fb.gradcam.png").rename(sandbox / "out" / "a?b.gradcam.png")
    [line] = lines(sandbox / "out")
    del line["crc32"]
    line["files"] = [{"path": "a?b.gradcam.png", "bytes": 7, "sha256": "0" * 64}]
    (sandbox / "out" / "manifest.jsonl").write_bytes(encoded(line))
    (sandbox / "out" / "a?b.gradcam.png").write_bytes(b"earlier")
    summary = explain_folder(explainer, sandbox / "in", sandbox / "out")
    assert (summary.already_recorded, summary.done, summary.failed) == (1, 3, 0)
    assert [[file["path"] for file in line["files"]] for line in lines(sandbox / "out")] == [
        ["a?b.gradcam.png"],
        ["a%3Fb.png.gradcam.png"],
        ["a%3Fb.webp.gradcam.png"],
    ]
    assert (sandbox / "out" / "a?b.gradcam.png").read_bytes() == b"earlier"


def test_planned_names_are_short_and_unique() -> None:
    paths = [PurePath(name) for name in HOSTILE]
    names = unique_names(paths)
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.is_absolute() and ".." not in name.parts and len(name.parts) < 60
        assert len(str(name).encode()) < 2500 and all(len(part.encode()) < 200 for part in name.parts)
        assert str(name).isprintable()
