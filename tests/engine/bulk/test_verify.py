"""Tests of `seewhy.bulk.verify` and `seewhy verify`: missing, short and changed files are listed, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from seewhy import Explainer, explain_folder
from support.command_line import failed, run
from support.jobs.broken_jobs import FORMATS, contents, lines, settings, write_images


@pytest.fixture
def out(explainer: Explainer, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes the output folder of a job over 9 images, one of them damaged."""

    def make(form: str) -> Path:
        write_images(tmp_path / "photos", 9, 1)
        explain_folder(explainer, tmp_path / "photos", tmp_path / "out", settings(form))
        return tmp_path / "out"

    return make


def verified(folder: Path, status: int) -> list[str]:
    """Run the command, and return the lines that it prints."""
    before = contents(folder)
    result = run("verify", folder)
    assert result.exit_code == status, result.output
    assert contents(folder) == before and not result.stderr
    return result.stdout.splitlines()


def first_result(out: Path) -> Path:
    line = next(line for line in lines(out) if line["status"] == "done")
    return out / (line["files"][0] if "files" in line else line["shard"])["path"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_folder(form: str, out: Callable[[str], Path]) -> None:
    folder = out(form)
    files = 8 if form == "png" else 3
    assert verified(folder, 0) == [f"9 images in {folder}: 8 done, 1 failed; {files} files, no problems"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), r"has 0 bytes instead of \d+"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), r"has \d+ bytes instead of \d+"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
            "has changed: its SHA-256 is not the recorded one",
        ),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "is no longer a file"),
    ],
)
def test_one_result_has_changed(
    spoil: Callable[[Path], object], words: str, form: str, out: Callable[[str], Path]
) -> None:
    folder = out(form)
    path = first_result(folder)
    spoil(path)
    [problem, summary] = verified(folder, 1)
    assert re.fullmatch(f"{re.escape(str(path))}: {words}", problem), problem
    assert summary.endswith(", 1 problem")


@pytest.mark.parametrize("form", FORMATS)
def test_results_that_no_line_names(form: str, out: Callable[[str], Path]) -> None:
    """They are listed, but not as problems. Files with other names are ignored."""
    folder = out(form)
    unlisted = {"0/left.gradcam.png", "left.gradcam.281.jpg", "left.sheet.webp", "shards/00077.npz", "x.cam.npz"}
    for name in sorted(unlisted | {"notes.txt", "0/photo.png", "shards/mine.npz", "photo.v2.png"}):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    *found, summary = verified(folder, 0)
    assert {line.partition(": ")[0] for line in found} == {str(folder / name) for name in unlisted}
    assert all(": is not named in manifest.jsonl" in line for line in found)
    assert summary.endswith(", no problems, 5 unlisted")


def test_lines_that_are_missing(out: Callable[[str], Path]) -> None:
    folder = out("png")
    manifest = folder / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:7])[:-1])
    found = verified(folder, 1)
    assert f"{manifest}: ends with an incomplete line; its images are explained again when the job resumes" in found
    assert f"{manifest}: has lines for 6 images, but run.json counts 9" in found
    assert sum("is not named in manifest.jsonl" in line for line in found) >= 2


def test_an_image_that_has_two_lines(out: Callable[[str], Path]) -> None:
    """The second line replaces another image's line, so that the counts are right."""
    folder = out("png")
    manifest = folder / "manifest.jsonl"
    parts = manifest.read_bytes().splitlines(keepends=True)
    parts[5] = parts[4]
    manifest.write_bytes(b"".join(parts))
    failed(run("verify", folder), "manifest.jsonl: damaged at line 6: the image has a line already")


def test_names_are_escaped(explainer: Explainer, tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 1)
    folder = tmp_path / "a\x1b[2Jb"
    explain_folder(explainer, tmp_path / "photos", folder)
    first_result(folder).unlink()
    assert all(line.isprintable() for line in verified(folder, 1))


def test_folders_that_cannot_be_checked(out: Callable[[str], Path], tmp_path: Path) -> None:
    failed(run("verify", tmp_path), "has no run.json, so it is not the output folder of a job")
    failed(run("verify", ""), "OUT is empty; is a variable not set")
    folder = out("png")
    manifest = folder / "manifest.jsonl"
    data = manifest.read_bytes()
    manifest.write_bytes(data[:30] + b"?" + data[31:])
    failed(run("verify", folder), "manifest.jsonl: damaged at line 1: its checksum does not match its content")
    manifest.unlink()
    failed(run("verify", folder), "manifest.jsonl: cannot be read: No such file")
    (folder / "run.json").write_text(json.dumps({"name": "training"}))
    failed(run("verify", folder), "run.json: not written by SeeWhy")
