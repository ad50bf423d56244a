"""Tests of jobs that are resumed after results, the manifest or images changed: no bad result counts as done."""

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


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, replace_by_a_link])
def test_a_missing_or_truncated_shard_is_computed_again(
    damage: Callable[[Path], object],
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
) -> None:
    """The new shard replaces the old one and has the same bytes."""
    shutil.copytree(uninterrupted("npz"), out)
    damage(out / "shards" / "00001.npz")
    summary, notices = resume(explainer, image_folder, out, "npz")
    assert notices == ["images whose results are missing or incomplete: 4", "images that are explained again: 4"]
    assert (summary.done, summary.failed, summary.already_recorded) == (COUNT - 3, 3, COUNT - 4)
    (out / "shards" / "elsewhere").unlink(missing_ok=True)
    assert contents(out / "shards") == contents(uninterrupted("npz") / "shards")
    assert sorted(line["path"] for line in lines(out)) == [line["path"] for line in lines(uninterrupted("npz"))]
    assert resume(explainer, image_folder, out, "npz")[1] == []


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, replace_by_a_link])
def test_a_missing_or_truncated_overlay_is_computed_again(
    damage: Callable[[Path], object],
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    shutil.copytree(uninterrupted("png"), out)
    done = [line for line in lines(out) if line["status"] == "done"]
    for line in (done[0], done[4], done[-1]):
        damage(out / line["files"][0]["path"])
    summary, notices = resume(explainer, image_folder, out, "png")
    assert notices == ["images whose results are missing or incomplete: 3", "images that are explained again: 3"]
    assert summary.already_recorded == COUNT - 3
    for link in out.rglob("elsewhere"):
        link.unlink()
    sort_manifest(out)
    assert_same(out, uninterrupted("png"), paths, "png")


def test_a_folder_in_place_of_an_overlay_ends_the_job(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """The folder may hold files of the user."""
    shutil.copytree(uninterrupted("png"), out)
    line = next(line for line in lines(out) if line["status"] == "done")
    replace_by_a_folder(out / line["files"][0]["path"])
    with pytest.raises(OutputError, match=r"gradcam\.png: cannot be written: Is a directory"):
        resume(explainer, image_folder, out, "png")


@pytest.mark.parametrize("form", FORMATS)
def test_all_results_deleted(
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    out.mkdir()
    for name in ("manifest.jsonl", "run.json"):
        shutil.copy(uninterrupted(form) / name, out)
    summary, notices = resume(explainer, image_folder, out, form)
    lost = COUNT - 3 if form == "png" else COUNT  # a shard also has rows for failed images
    assert notices == [
        f"images whose results are missing or incomplete: {lost}",
        f"images that are explained again: {lost}",
    ]
    assert (summary.done, summary.already_recorded) == (COUNT - 3, COUNT - lost)
    sort_manifest(out)
    assert_same(out, uninterrupted(form), paths, form)


def test_an_interruption_while_lost_results_are_computed_again(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, paths: list[Path], out: Path
) -> None:
    """Results that were not computed again still count as missing."""
    shutil.copytree(uninterrupted("npz"), out)
    for name in ("00000.npz", "00002.npz"):
        (out / "shards" / name).unlink()
    job = FolderJob(resolve_job(explainer, broken_jobs.settings("npz")), Inputs([image_folder], out), out)
    outcomes = iter(job)
    for _ in range(5):
        next(outcomes)
    outcomes.close()
    summary, notices = resume(explainer, image_folder, out, "npz")
    assert notices == [] and summary.done + summary.failed == COUNT > summary.already_recorded > COUNT - 8
    sort_manifest(out)
    assert [line["path"] for line in lines(out)] == [line["path"] for line in lines(uninterrupted("npz"))]


@pytest.mark.parametrize("form", FORMATS)
def test_an_emptied_manifest_is_refused(
    form: str, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    shutil.copytree(uninterrupted(form), out)
    (out / "manifest.jsonl").write_bytes(b"")
    before = contents(out)
    with pytest.raises(OutputError, match=rf"manifest\.jsonl: is empty, although run\.json counts {COUNT} images"):
        resume(explainer, image_folder, out, form)
    assert contents(out) == before


@pytest.mark.parametrize("form", FORMATS)
def test_missing_lines_of_a_finished_manifest(
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    shutil.copytree(uninterrupted(form), out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:8]))
    summary, notices = resume(explainer, image_folder, out, form)
    assert notices == [f"images that run.json counts and manifest.jsonl lacks: {COUNT - 8}"]
    assert summary.already_recorded == 8
    assert_same(out, uninterrupted(form), paths, form)


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bits_in_a_manifest_are_detected(
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    """A damaged line is refused with its number; a damaged last line is dropped and its images are explained again."""
    shutil.copytree(uninterrupted(form), out)
    manifest = out / "manifest.jsonl"
    data = manifest.read_bytes()
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    random = np.random.default_rng(11)
    for position in random.integers(0, last, 60).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        manifest.write_bytes(flipped)
        with pytest.raises(OutputError, match=r"manifest\.jsonl: damaged at line \d+"):
            resume(explainer, image_folder, out, form)
    for position in [*random.integers(last, len(data), 4).tolist(), len(data) - 1]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        manifest.write_bytes(flipped)
        summary, notices = resume(explainer, image_folder, out, form)
        assert len(notices) == 1 and summary.already_recorded < COUNT == summary.done + summary.failed
        assert_same(out, uninterrupted(form), paths, form)


def test_a_manifest_of_an_earlier_version(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """The lines of earlier versions have no checksum."""
    shutil.copytree(uninterrupted("png"), out)
    old = [{k: v for k, v in line.items() if k != "crc32"} for line in lines(out)]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(OutputError, match="damaged at line 1: it has no checksum, because an earlier version"):
        resume(explainer, image_folder, out, "png")


def test_a_manifest_without_line_breaks_is_not_read_whole(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """A sparse file of 40 GiB would fill the memory."""
    shutil.copytree(uninterrupted("png"), out)
    with (out / "manifest.jsonl").open("r+b") as file:
        file.truncate(0)
        file.truncate(40 * 2**30)
    with pytest.raises(OutputError, match="damaged at line 1: it is longer than 67108864 bytes"):
        resume(explainer, image_folder, out, "png")


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "a/../../outside.png", "", "a\0b", "a\ud83d"])
def test_a_line_that_names_a_file_outside_the_folder_is_refused(
    path: str, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """The checksum of the line is correct, so only the path is wrong."""
    from seewhy.storage.manifest_lines import encoded

    shutil.copytree(uninterrupted("png"), out)
    found = [{k: v for k, v in line.items() if k != "crc32"} for line in lines(out)]
    next(line for line in found if "files" in line)["files"][0]["path"] = path
    (out / "manifest.jsonl").write_bytes(b"".join(map(encoded, found)))
    with pytest.raises(OutputError, match=r"manifest\.jsonl: damaged at line"):
        resume(explainer, image_folder, out, "png")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_results_on_an_unreachable_share_are_not_lost(
    number: int,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(uninterrupted("png"), out)
    before = contents(out)
    stat = os.stat

    def fail(path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        if str(path).endswith(".gradcam.png"):
            raise OSError(number, os.strerror(number))
        return stat(path, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(OutputError, match=rf"gradcam\.png: cannot be checked: {os.strerror(number)}"):
            resume(explainer, image_folder, out, "png")
        assert problems(out) == COUNT - 3
    assert contents(out) == before


def test_a_job_that_is_stopped_before_it_resumes(
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job checks no result files first and drops no lines."""
    shutil.copytree(uninterrupted("png"), out)
    next(out.rglob("*.gradcam.png")).unlink()
    stop = threading.Event()
    stop.set()
    stat, checked = os.stat, []

    def count(path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        checked.append(str(path))
        return stat(path, *arguments, **keywords)

    job = FolderJob(resolve_job(explainer, broken_jobs.settings("png")), Inputs([image_folder], out), out, stop=stop)
    monkeypatch.setattr(os, "stat", count)
    assert list(job) == [] and job.stopped and len(lines(out)) == COUNT
    assert checked and not [
        path for path in checked if path.startswith(str(image_folder)) or path.endswith(".gradcam.png")
    ]


@pytest.mark.parametrize("deleted", [True, False])
def test_a_lost_shard_of_images_that_are_only_partly_given(
    deleted: bool, explainer: Explainer, tmp_path: Path, out: Path
) -> None:
    """The given images of the shard are explained again, and the lines of the others are dropped."""
    image_folder = tmp_path / "images"
    paths = write_images(image_folder, 5)
    explain_folder(explainer, image_folder, out, broken_jobs.settings("npz", shard_images=5))
    (out / "shards" / "00000.npz").unlink()
    if deleted:
        paths[2].unlink()
    images = [image_folder] if deleted else [path for path in paths if path != paths[2]]
    notices: list[str] = []
    settings = broken_jobs.settings("npz", shard_images=5)
    job = FolderJob(resolve_job(explainer, settings), Inputs(images, out), out, notice=notices.append)
    assert len(list(job)) == 4 and (job.done, job.already_recorded) == (4, 0)
    assert notices == [
        "images whose results are missing or incomplete: 5",
        "images that are explained again: 4",
        "images that are not explained again, because they or others of their shard are not given: 1",
    ]
    assert problems(out) == 0 and len(lines(out)) == 4


def test_a_kill_between_the_writes_of_manifest_and_run_json(
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest is empty after the kill, and run.json must not count the dropped lines."""
    shutil.copytree(uninterrupted("npz"), out)
    shutil.rmtree(out / "shards")
    rewrite = Folder.rewrite

    def kill(*arguments: Any) -> None:
        rewrite(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "rewrite", kill)
        with pytest.raises(KeyboardInterrupt):
            resume(explainer, image_folder, out, "npz")
    assert (out / "manifest.jsonl").read_bytes() == b""
    assert resume(explainer, image_folder, out, "npz")[0].done == COUNT - 3
    assert contents(out / "shards") == contents(uninterrupted("npz") / "shards")


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_refused_job_changes_nothing(
    form: str, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """Even an incomplete last line of the manifest stays."""
    shutil.copytree(uninterrupted(form), out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    before = contents(out)
    with pytest.raises(OutputError, match="holds results of another job: methods was"):
        explain_folder(explainer, image_folder, out, broken_jobs.settings(form, methods=["hirescam"]))
    assert contents(out) == before


def test_files_of_the_user_beside_shards_stay(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    shutil.copytree(uninterrupted("npz"), out)
    for name in ("2024.npz", "000007.npz", "\u0661\u0662\u0663\u0664\u0665.npz"):
        (out / "shards" / name).write_bytes(b"mine")
    (out / "shards" / "00077.npz").write_bytes(b"of a job that was killed")
    resume(explainer, image_folder, out, "npz")
    assert len(contents(out / "shards")) == len(contents(uninterrupted("npz") / "shards")) + 3


@pytest.mark.parametrize("counts", [{"done": -5}, {"done": 24.0}, {"done": "24"}, {"done": True}, None, []])
def test_invalid_counts_in_run_json_are_refused(
    counts: Any, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    shutil.copytree(uninterrupted("png"), out)
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "images": counts}))
    with pytest.raises(OutputError, match=r"run\.json: damaged: it counts images as"):
        resume(explainer, image_folder, out, "png")


def test_a_huge_run_json_is_not_read(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    shutil.copytree(uninterrupted("png"), out)
    os.truncate(out / "run.json", 40 * 2**30)
    with pytest.raises(OutputError, match=r"run\.json: damaged"):
        resume(explainer, image_folder, out, "png")
