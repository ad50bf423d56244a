"""Tests of jobs that resume after results, the manifest or images have changed: nothing wrong counts as done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, OutputError, explain_folder
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage.output_folder import Folder
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, assert_same, contents, lines, write_images
from support.jobs.resumed_jobs import (
    cut,
    empty,
    problems,
    replace_by_a_folder,
    replace_by_a_link,
    resume,
    sort_manifest,
)

COUNT = 13


@pytest.mark.parametrize("spoil", [Path.unlink, empty, cut, replace_by_a_link])
def test_a_shard_that_is_missing_or_short_is_made_again(
    spoil: Callable[[Path], object], whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """It takes the place of the old one, with the same bytes."""
    shutil.copytree(whole("npz"), out)
    spoil(out / "shards" / "00001.npz")
    summary, said = resume(explainer, photos, out, "npz")
    assert said == ["images whose results are missing or incomplete: 4", "images that are explained again: 4"]
    assert (summary.done, summary.failed, summary.already_recorded) == (COUNT - 3, 3, COUNT - 4)
    (out / "shards" / "elsewhere").unlink(missing_ok=True)
    assert contents(out / "shards") == contents(whole("npz") / "shards")
    assert sorted(line["path"] for line in lines(out)) == [line["path"] for line in lines(whole("npz"))]
    assert resume(explainer, photos, out, "npz")[1] == []


@pytest.mark.parametrize("spoil", [Path.unlink, empty, cut, replace_by_a_link])
def test_a_picture_that_is_missing_or_short_is_made_again(
    spoil: Callable[[Path], object],
    whole: Callable[[str], Path],
    explainer: Explainer,
    photos: Path,
    paths: list[Path],
    out: Path,
) -> None:
    shutil.copytree(whole("png"), out)
    done = [line for line in lines(out) if line["status"] == "done"]
    for line in (done[0], done[4], done[-1]):
        spoil(out / line["files"][0]["path"])
    summary, said = resume(explainer, photos, out, "png")
    assert said == ["images whose results are missing or incomplete: 3", "images that are explained again: 3"]
    assert summary.already_recorded == COUNT - 3
    for link in out.rglob("elsewhere"):
        link.unlink()
    sort_manifest(out)
    assert_same(out, whole("png"), paths, "png")


def test_a_folder_in_place_of_a_picture_ends_the_job(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """It may hold what somebody else put there."""
    shutil.copytree(whole("png"), out)
    line = next(line for line in lines(out) if line["status"] == "done")
    replace_by_a_folder(out / line["files"][0]["path"])
    with pytest.raises(OutputError, match=r"gradcam\.png: cannot be written: Is a directory"):
        resume(explainer, photos, out, "png")


@pytest.mark.parametrize("form", FORMATS)
def test_everything_deleted_but_the_records(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    out.mkdir()
    for name in ("manifest.jsonl", "run.json"):
        shutil.copy(whole(form) / name, out)
    summary, said = resume(explainer, photos, out, form)
    lost = COUNT - 3 if form == "png" else COUNT  # a shard has the rows of failed images, too
    assert said == [
        f"images whose results are missing or incomplete: {lost}",
        f"images that are explained again: {lost}",
    ]
    assert (summary.done, summary.already_recorded) == (COUNT - 3, COUNT - lost)
    sort_manifest(out)
    assert_same(out, whole(form), paths, form)


def test_a_job_that_is_broken_off_while_it_makes_results_again(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    """What it has not made again is remembered as missing."""
    shutil.copytree(whole("npz"), out)
    for name in ("00000.npz", "00002.npz"):
        (out / "shards" / name).unlink()
    run = FolderJob(resolve_job(explainer, broken_jobs.settings("npz")), Inputs([photos], out), out)
    outcomes = iter(run)
    for _ in range(5):
        next(outcomes)
    outcomes.close()
    summary, said = resume(explainer, photos, out, "npz")
    assert said == [] and summary.done + summary.failed == COUNT > summary.already_recorded > COUNT - 8
    sort_manifest(out)
    assert [line["path"] for line in lines(out)] == [line["path"] for line in lines(whole("npz"))]


@pytest.mark.parametrize("form", FORMATS)
def test_a_manifest_that_was_emptied_is_refused(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    shutil.copytree(whole(form), out)
    (out / "manifest.jsonl").write_bytes(b"")
    before = contents(out)
    with pytest.raises(OutputError, match=rf"manifest\.jsonl: is empty, though run\.json counts {COUNT} images"):
        resume(explainer, photos, out, form)
    assert contents(out) == before


@pytest.mark.parametrize("form", FORMATS)
def test_lines_that_are_missing_from_a_finished_manifest(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    shutil.copytree(whole(form), out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:8]))
    summary, said = resume(explainer, photos, out, form)
    assert said == [f"images that run.json counts and manifest.jsonl lacks: {COUNT - 8}"]
    assert summary.already_recorded == 8
    assert_same(out, whole(form), paths, form)


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bits_in_a_manifest_are_never_taken_for_results(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    """Each is refused with the line's number, or costs the last line, and then its images are explained again."""
    shutil.copytree(whole(form), out)
    manifest = out / "manifest.jsonl"
    data = manifest.read_bytes()
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    random = np.random.default_rng(11)
    for position in random.integers(0, last, 60).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        manifest.write_bytes(flipped)
        with pytest.raises(OutputError, match=r"manifest\.jsonl: damaged at line \d+"):
            resume(explainer, photos, out, form)
    for position in [*random.integers(last, len(data), 4).tolist(), len(data) - 1]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        manifest.write_bytes(flipped)
        summary, said = resume(explainer, photos, out, form)
        assert len(said) == 1 and summary.already_recorded < COUNT == summary.done + summary.failed
        assert_same(out, whole(form), paths, form)


def test_a_manifest_of_an_earlier_version(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """Its lines have no checksum."""
    shutil.copytree(whole("png"), out)
    old = [{k: v for k, v in line.items() if k != "crc32"} for line in lines(out)]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(OutputError, match="damaged at line 1: it has no checksum, because an earlier version"):
        resume(explainer, photos, out, "png")


def test_a_manifest_without_line_breaks_is_not_read_whole(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """A file of 40 GiB that takes no room on the disk would fill the memory."""
    shutil.copytree(whole("png"), out)
    with (out / "manifest.jsonl").open("r+b") as file:
        file.truncate(0)
        file.truncate(40 * 2**30)
    with pytest.raises(OutputError, match="damaged at line 1: it is longer than 67108864 bytes"):
        resume(explainer, photos, out, "png")


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "a/../../outside.png", "", "a\0b", "a\ud83d"])
def test_a_line_that_names_a_file_elsewhere_is_refused(
    path: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """Its checksum is right, so somebody made it so."""
    from seewhy.storage.manifest_lines import encoded

    shutil.copytree(whole("png"), out)
    found = [{k: v for k, v in line.items() if k != "crc32"} for line in lines(out)]
    next(line for line in found if "files" in line)["files"][0]["path"] = path
    (out / "manifest.jsonl").write_bytes(b"".join(map(encoded, found)))
    with pytest.raises(OutputError, match=r"manifest\.jsonl: damaged at line"):
        resume(explainer, photos, out, "png")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_share_that_does_not_answer_has_lost_nothing(
    number: int,
    whole: Callable[[str], Path],
    explainer: Explainer,
    photos: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(whole("png"), out)
    before = contents(out)
    stat = os.stat

    def fail(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if str(path).endswith(".gradcam.png"):
            raise OSError(number, os.strerror(number))
        return stat(path, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(OutputError, match=rf"gradcam\.png: cannot be checked: {os.strerror(number)}"):
            resume(explainer, photos, out, "png")
        assert problems(out) == COUNT - 3
    assert contents(out) == before


def test_a_job_that_is_stopped_before_it_goes_on(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither checks a million files first, nor gives anything up."""
    shutil.copytree(whole("png"), out)
    next(out.rglob("*.gradcam.png")).unlink()
    stop = threading.Event()
    stop.set()
    stat, seen = os.stat, []

    def count(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        seen.append(str(path))
        return stat(path, *arguments, **more)

    run = FolderJob(resolve_job(explainer, broken_jobs.settings("png")), Inputs([photos], out), out, stop=stop)
    monkeypatch.setattr(os, "stat", count)
    assert list(run) == [] and run.stopped and len(lines(out)) == COUNT
    assert seen and not [path for path in seen if path.startswith(str(photos)) or path.endswith(".gradcam.png")]


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_shard_of_images_that_are_not_all_given(
    gone: bool, explainer: Explainer, tmp_path: Path, out: Path
) -> None:
    """Nothing of it is left to keep, so the images that are given are explained again, and the others are given up."""
    photos = tmp_path / "photos"
    paths = write_images(photos, 5)
    explain_folder(explainer, photos, out, broken_jobs.settings("npz", shard_images=5))
    (out / "shards" / "00000.npz").unlink()
    if gone:
        paths[2].unlink()
    images = [photos] if gone else [path for path in paths if path != paths[2]]
    said: list[str] = []
    settings = broken_jobs.settings("npz", shard_images=5)
    run = FolderJob(resolve_job(explainer, settings), Inputs(images, out), out, notice=said.append)
    assert len(list(run)) == 4 and (run.done, run.already_recorded) == (4, 0)
    assert said == [
        "images whose results are missing or incomplete: 5",
        "images that are explained again: 4",
        "images that are not explained again, since they or others of their shard are not given: 1",
    ]
    assert problems(out) == 0 and len(lines(out)) == 4


def test_a_kill_between_the_manifest_and_the_record(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is empty then, and run.json must not count what it has lost."""
    shutil.copytree(whole("npz"), out)
    shutil.rmtree(out / "shards")
    rewrite = Folder.rewrite

    def kill(*arguments: Any) -> None:
        rewrite(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "rewrite", kill)
        with pytest.raises(KeyboardInterrupt):
            resume(explainer, photos, out, "npz")
    assert (out / "manifest.jsonl").read_bytes() == b""
    assert resume(explainer, photos, out, "npz")[0].done == COUNT - 3
    assert contents(out / "shards") == contents(whole("npz") / "shards")


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_refused_job_changes_nothing(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """Not even an incomplete end of the manifest."""
    shutil.copytree(whole(form), out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    before = contents(out)
    with pytest.raises(OutputError, match="holds results of another run: methods was"):
        explain_folder(explainer, photos, out, broken_jobs.settings(form, methods=["hirescam"]))
    assert contents(out) == before


def test_files_of_the_user_s_own_beside_shards_stay(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    shutil.copytree(whole("npz"), out)
    for name in ("2024.npz", "000007.npz", "\u0661\u0662\u0663\u0664\u0665.npz"):
        (out / "shards" / name).write_bytes(b"mine")
    (out / "shards" / "00077.npz").write_bytes(b"of a job that was killed")
    resume(explainer, photos, out, "npz")
    assert len(contents(out / "shards")) == len(contents(whole("npz") / "shards")) + 3


@pytest.mark.parametrize("counts", [{"done": -5}, {"done": 24.0}, {"done": "24"}, {"done": True}, None, []])
def test_counts_that_are_no_numbers_are_refused(
    counts: Any, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    shutil.copytree(whole("png"), out)
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "images": counts}))
    with pytest.raises(OutputError, match=r"run\.json: damaged: it counts images as"):
        resume(explainer, photos, out, "png")


def test_a_record_of_the_run_that_never_ends_is_not_read(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    shutil.copytree(whole("png"), out)
    os.truncate(out / "run.json", 40 * 2**30)
    with pytest.raises(OutputError, match=r"run\.json: damaged"):
        resume(explainer, photos, out, "png")
