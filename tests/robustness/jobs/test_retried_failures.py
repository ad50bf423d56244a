"""Tests of `retry_failed`: images that failed are explained again, and everything that is done stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy import Explainer, explain_folder
from support import command_line
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, archive, assert_complete, assert_same, contents, lines, write_images
from support.jobs.resumed_jobs import sort_manifest


@pytest.mark.parametrize("form", FORMATS)
def test_repaired_images_get_the_results_of_a_fresh_job(
    form: str, explainer: Explainer, tmp_path: Path, out: Path
) -> None:
    images = tmp_path / "images"
    paths = write_images(images, 9)
    good = {path: path.read_bytes() for path in (paths[2], paths[7])}
    for path in good:
        path.write_bytes(b"no image")
    settings = broken_jobs.settings(form)
    assert explain_folder(explainer, images, out, settings).failed == 2
    before = contents(out)
    paths[2].write_bytes(good[paths[2]])
    assert explain_folder(explainer, images, out, settings).failed == 2  # without the option, nothing is tried again
    summary = explain_folder(explainer, images, out, settings, retry_failed=True)
    again = 2 if form == "png" else 8  # two whole shards of four images
    assert (summary.done, summary.failed, summary.already_recorded) == (8, 1, 9 - again)
    if form == "png":
        assert {name: contents(out)[name] for name in before if name.endswith(".png")} == {
            name: content for name, content in before.items() if name.endswith(".png")
        }
    sort_manifest(out)
    assert_complete(out, paths, form)
    paths[7].write_bytes(good[paths[7]])
    assert explain_folder(explainer, images, out, settings, retry_failed=True).failed == 0
    sort_manifest(out)
    explain_folder(explainer, images, tmp_path / "fresh", settings)
    assert_same(out, tmp_path / "fresh", paths, form)


def test_members_of_archives(explainer: Explainer, tmp_path: Path, out: Path, png: bytes) -> None:
    tar = archive(tmp_path / "images.tar", ["a.png", "b.png"], png)
    tar.write_bytes(tar.read_bytes()[:1024])  # the archive ends inside its first member, or after it
    assert explain_folder(explainer, tar, out).failed == 1
    archive(tar, ["a.png", "b.png"], png)
    summary = explain_folder(explainer, tar, out, retry_failed=True)
    assert (summary.done, summary.failed) == (2, 0)
    assert [line["status"] for line in lines(out)] == ["done", "done"]


def test_failures_of_images_that_are_not_given_stay(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write_images(folder, 3)[1].write_bytes(b"")
    explain_folder(explainer, [one, two], out)
    summary = explain_folder(explainer, [one], out, retry_failed=True)
    assert (summary.done, summary.failed, summary.already_recorded) == (2, 1, 2)
    assert [line["status"] for line in lines(out)].count("failed") == 2


def test_command_line(model_path: Path, tmp_path: Path, out: Path) -> None:
    images = tmp_path / "images"
    damaged = write_images(images, 3)[1]
    good = damaged.read_bytes()
    damaged.write_bytes(b"")
    command = ("explain", model_path, images, "-o", out, "-q")
    assert command_line.run(*command).exit_code == 1
    assert "use --retry-failed to retry them" in command_line.run(*command).stderr
    damaged.write_bytes(good)
    result = command_line.run(*command, "--retry-failed")
    assert result.exit_code == 0 and "3 explained, 0 failed (2 of the images in earlier attempts)" in result.stderr
