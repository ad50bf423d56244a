"""Tests of jobs that are resumed after images were replaced, repaired, removed or added."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seewhy import Explainer, Settings, explain_folder
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.inputs.image_inputs import Inputs
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, archive, assert_complete, assert_same, contents, lines, write_images
from support.jobs.resumed_jobs import (
    problems,
    resume,
    sort_manifest,
)

COUNT = 13


@pytest.mark.parametrize("form", FORMATS)
def test_images_that_were_replaced(form: str, explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """A notice counts them. With `changed=True` they are explained again, with the results of a fresh job."""
    image_folder = tmp_path / "images"
    paths = write_images(image_folder, 9)
    explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
    before = contents(out)
    shutil.copy(paths[0], paths[5])
    paths[2].write_bytes(b"no image")
    summary, notices = resume(explainer, image_folder, out, form)
    assert notices == ["images whose files have changed since they were explained: 2; --changed explains them again"]
    assert (summary.done, summary.failed, summary.already_recorded) == (9, 0, 9)
    unchanged = {name for name in before if name != "run.json"}
    assert {name: contents(out)[name] for name in unchanged} == {name: before[name] for name in unchanged}

    summary, notices = resume(explainer, image_folder, out, form, changed=True)
    again = 2 if form == "png" else 8  # two whole shards are explained again
    assert notices == [
        "images whose files have changed since they were explained: 2",
        f"images that are explained again: {again}",
    ]
    assert (summary.done, summary.failed, summary.already_recorded) == (8, 1, 9 - again)
    fresh = tmp_path / "fresh"
    explain_folder(explainer, image_folder, fresh, broken_jobs.settings(form))
    sort_manifest(out)
    if form == "png":  # the overlay of an image that now fails stays, and `seewhy verify` lists it
        [left] = set(contents(out)) - set(contents(fresh))
        (out / left).unlink()
        assert_same(out, fresh, paths, form)
    else:
        assert_complete(out, paths, form)
        assert contents(out / "shards") == contents(fresh / "shards")
    assert resume(explainer, image_folder, out, form, changed=True)[1] == []


def test_an_image_that_failed_and_was_repaired(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    image_folder = tmp_path / "images"
    paths = write_images(image_folder, 5)
    good = paths[3].read_bytes()
    paths[3].write_bytes(b"")
    assert explain_folder(explainer, image_folder, out).failed == 1
    paths[3].write_bytes(good)
    summary, notices = resume(explainer, image_folder, out, "png", changed=True)
    assert len(notices) == 2 and (summary.done, summary.failed, summary.already_recorded) == (5, 0, 4)


def test_an_archive_that_was_replaced(explainer: Explainer, tmp_path: Path, out: Path, png: bytes) -> None:
    """All members of the archive count as changed."""
    (tmp_path / "images").mkdir()
    tar = archive(tmp_path / "images.tar", ["a.png", "b.png"], png)
    write_images(tmp_path / "images", 2)
    inputs = [tar, tmp_path / "images"]
    explain_folder(explainer, inputs, out)
    archive(tar, ["a.png", "b.png", "c.png"], png)
    assert explain_folder(explainer, inputs, out).already_recorded == 4
    summary = explain_folder(explainer, inputs, out, changed=True)
    assert (summary.done, summary.already_recorded) == (5, 3)


def test_a_copy_of_the_same_images_counts_as_unchanged(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """A copied folder has other inodes, but the same file sizes and modification times."""
    image_folder = tmp_path / "images"
    write_images(image_folder, 4)
    explain_folder(explainer, image_folder, out)
    shutil.move(image_folder, tmp_path / "old")
    shutil.copytree(tmp_path / "old", image_folder)
    assert resume(explainer, image_folder, out, "png")[1] == []


def test_extreme_modification_times(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """Times in nanoseconds may need more than 64 bits."""
    image_folder = tmp_path / "images"
    paths = write_images(image_folder, 2)
    for path, seconds in zip(paths, (-(2**31) + 5, 2**34 - 5), strict=True):
        try:
            os.utime(path, (seconds, seconds))
        except OSError:
            pytest.skip("this file system has no such times")
    explain_folder(explainer, image_folder, out)
    assert resume(explainer, image_folder, out, "png")[1] == []


# Jobs that get only some of the images.


@pytest.mark.parametrize("form", FORMATS)
def test_results_of_images_that_the_job_is_not_given_stay(
    form: str, explainer: Explainer, tmp_path: Path, out: Path
) -> None:
    """Their manifest lines stay, and so does a shard that they share with a changed image."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_images(one, 3)
    changed = write_images(two, 3)[1]
    settings = broken_jobs.settings(form, shard_images=6)
    explain_folder(explainer, [one, two], out, settings)
    before = contents(out)
    changed.write_bytes(changed.read_bytes() + b"\0")
    notices: list[str] = []
    for _ in FolderJob(resolve_job(explainer, settings), Inputs([two], out), out, changed=True, notice=notices.append):
        pass
    if form == "png":
        assert notices[-1] == "images that are explained again: 1" and len(lines(out)) == 6
    else:
        assert notices[-1] == (
            "images that are not explained again, because they or others of their shard are not given: 1"
        )
        assert {name: contents(out)[name] for name in before if name != "run.json"} == {
            name: content for name, content in before.items() if name != "run.json"
        }
    assert explain_folder(explainer, [one, two], out, settings, changed=True).already_recorded == (
        6 if form == "png" else 0
    )
    assert len(lines(out)) == 6


def test_lost_results_of_images_that_the_job_is_not_given(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """Their manifest lines stay, so `seewhy verify` lists them and a job with all images can compute them again."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_images(one, 3)
    write_images(two, 3)
    explain_folder(explainer, [one, two], out)
    for line in lines(out)[:3]:
        (out / line["files"][0]["path"]).unlink()
    notices: list[str] = []
    job = FolderJob(resolve_job(explainer, Settings()), Inputs([two], out), out, notice=notices.append)
    assert list(job) == [] and job.already_recorded == 3 and len(lines(out)) == 6
    assert notices == [
        "images whose results are missing or incomplete: 3",
        "images that are not explained again, because they or others of their shard are not given: 3",
    ]
    assert explain_folder(explainer, [one, two], out).already_recorded == 3
    assert problems(out) == 0


def test_an_image_that_appears_after_it_failed(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    paths = write_images(tmp_path / "images", 3)
    added = tmp_path / "late.png"
    assert explain_folder(explainer, [*paths, added], out).failed == 1
    assert resume_and_return_notices(explainer, [*paths, added], out) == []
    shutil.copy(next(path for path in paths if path.suffix == ".png"), added)
    assert resume_and_return_notices(explainer, [*paths, added], out) == [
        "images whose files have changed since they were explained: 1; --changed explains them again"
    ]
    assert explain_folder(explainer, [*paths, added], out, changed=True).done == 4


def resume_and_return_notices(explainer: Explainer, images: list[Path], out: Path) -> list[str]:
    notices: list[str] = []
    assert list(FolderJob(resolve_job(explainer, Settings()), Inputs(images, out), out, notice=notices.append)) == []
    return notices


def test_an_archive_that_appears_after_it_failed(explainer: Explainer, tmp_path: Path, out: Path, png: bytes) -> None:
    tar = tmp_path / "images.tar"
    (tmp_path / "list.txt").write_text(str(tar))
    assert explain_folder(explainer, [], out, lists=[tmp_path / "list.txt"]).failed == 1
    archive(tar, ["a.png"], png)
    summary = explain_folder(explainer, [], out, lists=[tmp_path / "list.txt"], changed=True)
    assert (summary.done, summary.failed) == (1, 0)
    assert [line["path"] for line in lines(out)] == [f"{tar}#a.png"]
