"""Tests of jobs that resume with other images than before: replaced, repaired, missing, or more of them."""

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
from support.jobs.broken_jobs import FORMATS, archive, assert_complete, assert_same, contents, lines, pictures
from support.jobs.resumed_jobs import (
    problems,
    resume,
    sort_manifest,
)

COUNT = 13


@pytest.mark.parametrize("form", FORMATS)
def test_images_that_were_replaced(form: str, explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """They are named, and with `changed` explained again as if they had been there from the beginning."""
    photos = tmp_path / "photos"
    paths = pictures(photos, 9)
    explain_folder(explainer, photos, out, broken_jobs.settings(form))
    before = contents(out)
    shutil.copy(paths[0], paths[5])
    paths[2].write_bytes(b"no image")
    summary, said = resume(explainer, photos, out, form)
    assert said == ["images whose files have changed since they were explained: 2; --changed explains them again"]
    assert (summary.done, summary.failed, summary.already_recorded) == (9, 0, 9)
    unchanged = {name for name in before if name != "run.json"}
    assert {name: contents(out)[name] for name in unchanged} == {name: before[name] for name in unchanged}

    summary, said = resume(explainer, photos, out, form, changed=True)
    again = 2 if form == "png" else 8  # of two shards everything is explained again
    assert said == [
        "images whose files have changed since they were explained: 2",
        f"images that are explained again: {again}",
    ]
    assert (summary.done, summary.failed, summary.already_recorded) == (8, 1, 9 - again)
    fresh = tmp_path / "fresh"
    explain_folder(explainer, photos, fresh, broken_jobs.settings(form))
    sort_manifest(out)
    if form == "png":  # the picture of an image that now fails is left, and `seewhy verify` lists it
        [left] = set(contents(out)) - set(contents(fresh))
        (out / left).unlink()
        assert_same(out, fresh, paths, form)
    else:
        assert_complete(out, paths, form)
        assert contents(out / "shards") == contents(fresh / "shards")
    assert resume(explainer, photos, out, form, changed=True)[1] == []


def test_an_image_that_failed_and_was_mended(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    photos = tmp_path / "photos"
    paths = pictures(photos, 5)
    good = paths[3].read_bytes()
    paths[3].write_bytes(b"")
    assert explain_folder(explainer, photos, out).failed == 1
    paths[3].write_bytes(good)
    summary, said = resume(explainer, photos, out, "png", changed=True)
    assert len(said) == 2 and (summary.done, summary.failed, summary.already_recorded) == (5, 0, 4)


def test_an_archive_that_was_replaced(explainer: Explainer, tmp_path: Path, out: Path, png: bytes) -> None:
    """All its members count as changed."""
    (tmp_path / "photos").mkdir()
    tar = archive(tmp_path / "photos.tar", ["a.png", "b.png"], png)
    pictures(tmp_path / "photos", 2)
    inputs = [tar, tmp_path / "photos"]
    explain_folder(explainer, inputs, out)
    archive(tar, ["a.png", "b.png", "c.png"], png)
    assert explain_folder(explainer, inputs, out).already_recorded == 4
    summary = explain_folder(explainer, inputs, out, changed=True)
    assert (summary.done, summary.already_recorded) == (5, 3)


def test_a_copy_of_the_same_images_counts_as_unchanged(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """A folder that was moved to another disk has other inodes, and the same sizes and times of modification."""
    photos = tmp_path / "photos"
    pictures(photos, 4)
    explain_folder(explainer, photos, out)
    shutil.move(photos, tmp_path / "old")
    shutil.copytree(tmp_path / "old", photos)
    assert resume(explainer, photos, out, "png")[1] == []


def test_times_that_no_clock_shows(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """In nanoseconds they may need more than 64 bits."""
    photos = tmp_path / "photos"
    paths = pictures(photos, 2)
    for path, seconds in zip(paths, (-(2**31) + 5, 2**34 - 5), strict=True):
        try:
            os.utime(path, (seconds, seconds))
        except OSError:
            pytest.skip("this file system has no such times")
    explain_folder(explainer, photos, out)
    assert resume(explainer, photos, out, "png")[1] == []


# Other images.


@pytest.mark.parametrize("form", FORMATS)
def test_results_of_images_that_the_job_is_not_given_stay(
    form: str, explainer: Explainer, tmp_path: Path, out: Path
) -> None:
    """Nothing would replace them: neither their lines go, nor a shard that they share with a changed image."""
    one, two = tmp_path / "one", tmp_path / "two"
    pictures(one, 3)
    changed = pictures(two, 3)[1]
    settings = broken_jobs.settings(form, shard_images=6)
    explain_folder(explainer, [one, two], out, settings)
    before = contents(out)
    changed.write_bytes(changed.read_bytes() + b"\0")
    said: list[str] = []
    for _ in FolderJob(resolve_job(explainer, settings), Inputs([two], out), out, changed=True, notice=said.append):
        pass
    if form == "png":
        assert said[-1] == "images that are explained again: 1" and len(lines(out)) == 6
    else:
        assert said[-1] == (
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
    """Their lines stay, so that `seewhy verify` names them, and so that the whole job can make them again."""
    one, two = tmp_path / "one", tmp_path / "two"
    pictures(one, 3)
    pictures(two, 3)
    explain_folder(explainer, [one, two], out)
    for line in lines(out)[:3]:
        (out / line["files"][0]["path"]).unlink()
    said: list[str] = []
    run = FolderJob(resolve_job(explainer, Settings()), Inputs([two], out), out, notice=said.append)
    assert list(run) == [] and run.already_recorded == 3 and len(lines(out)) == 6
    assert said == [
        "images whose results are missing or incomplete: 3",
        "images that are not explained again, because they or others of their shard are not given: 3",
    ]
    assert explain_folder(explainer, [one, two], out).already_recorded == 3
    assert problems(out) == 0


def test_an_image_that_was_missing_and_came(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    paths = pictures(tmp_path / "photos", 3)
    late = tmp_path / "late.png"
    assert explain_folder(explainer, [*paths, late], out).failed == 1
    assert resume_without(explainer, [*paths, late], out) == []
    shutil.copy(next(path for path in paths if path.suffix == ".png"), late)
    assert resume_without(explainer, [*paths, late], out) == [
        "images whose files have changed since they were explained: 1; --changed explains them again"
    ]
    assert explain_folder(explainer, [*paths, late], out, changed=True).done == 4


def resume_without(explainer: Explainer, images: list[Path], out: Path) -> list[str]:
    said: list[str] = []
    assert list(FolderJob(resolve_job(explainer, Settings()), Inputs(images, out), out, notice=said.append)) == []
    return said


def test_an_archive_that_was_missing_and_came(explainer: Explainer, tmp_path: Path, out: Path, png: bytes) -> None:
    tar = tmp_path / "photos.tar"
    (tmp_path / "list.txt").write_text(str(tar))
    assert explain_folder(explainer, [], out, lists=[tmp_path / "list.txt"]).failed == 1
    archive(tar, ["a.png"], png)
    summary = explain_folder(explainer, [], out, lists=[tmp_path / "list.txt"], changed=True)
    assert (summary.done, summary.failed) == (1, 0)
    assert [line["path"] for line in lines(out)] == [f"{tar}#a.png"]
