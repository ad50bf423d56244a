"""Tests of jobs that resume with other settings, models, software or images: other results are never mixed."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seewhy import Explainer, ImageError, OutputError, SeewhyError, explain_folder
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.settings import Settings
from seewhy.inputs.image_inputs import Inputs
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, assert_complete, assert_same, lines, write_images
from support.jobs.resumed_jobs import (
    copied,
    refused,
)
from support.tiny_model import Tiny

COUNT = 13


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": ["hirescam"]}, r"methods was \['gradcam'\] and is \['hirescam'\] now"),
        ({"methods": ["gradcam", "hirescam"]}, "methods was"),
        ({"methods": ["smoothgrad"], "options": {"smoothgrad": {"samples": 2}}}, "methods was"),
        ({"targets": [3]}, r"targets was not given and is \[3\] now"),
        ({"targets": ["espresso"]}, r"targets was not given and is \[1\] now"),
        ({"top": 2}, "top was not given and is 2 now"),
        ({"raw": True}, "raw was False and is True now"),
        ({"colormap": "turbo"}, "colormap was 'inferno' and is 'turbo' now"),
        ({"alpha": 0.4}, "alpha was 0.5 and is 0.4 now"),
        ({"canvas": "original"}, "canvas was 'model' and is 'original' now"),
        ({"fast_decode": True}, "decode was 'exact' and is 'fast' now"),
        ({"format": "npz"}, "format was 'png' and is 'npz' now"),
    ],
)
def test_a_different_run_is_refused(
    changed: dict[str, Any], words: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    copied(whole("png"), out)
    refused(out, words, lambda: explain_folder(explainer, photos, out, Settings(**changed)))


def test_a_different_option_of_a_method_is_refused(explainer: Explainer, paths: list[Path], out: Path) -> None:
    def run(samples: int) -> None:
        settings = Settings(["smoothgrad"], options={"smoothgrad": {"samples": samples}})
        explain_folder(explainer, paths[:2], out, settings)

    run(2)
    refused(out, "options.smoothgrad.samples was 2 and is 3 now", lambda: run(3))


def test_a_different_model_is_refused(whole: Callable[[str], Path], photos: Path, out: Path, tmp_path: Path) -> None:
    copied(whole("png"), out)
    other = Explainer(Tiny(seed=1).save(tmp_path / "other.onnx"), threads=1)
    refused(out, r"model\.sha256 was '\w+' and is", lambda: explain_folder(other, photos, out))


@pytest.mark.parametrize("place", ["versions.seewhy", "versions.onnxruntime", "versions.pillow", "versions.numpy"])
def test_different_software_is_refused(
    place: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    copied(whole("png"), out)
    facts = json.loads((out / "run.json").read_text())
    facts["versions"][place.partition(".")[2]] = "0.0.1"
    (out / "run.json").write_text(json.dumps(facts))
    refused(out, f"{re.escape(place)} was '0.0.1' and is", lambda: explain_folder(explainer, photos, out))


def test_relative_paths_from_another_folder_are_refused(
    explainer: Explainer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the same path is another image."""
    for name in ("one", "two"):
        write_images(tmp_path / name / "photos", 2)
    monkeypatch.chdir(tmp_path / "one")
    assert explain_folder(explainer, "photos", out).done == 2
    monkeypatch.chdir(tmp_path / "two")
    refused(out, "relative_to was '.*one' and is", lambda: explain_folder(explainer, "photos", out))
    assert explain_folder(explainer, tmp_path / "one" / "photos", tmp_path / "other").done == 2


def test_paths_of_both_kinds(explainer: Explainer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not relative mean the same everywhere."""
    for name in ("one", "two"):
        write_images(tmp_path / name / "photos", 2)
    explain_folder(explainer, tmp_path / "one" / "photos", out)
    monkeypatch.chdir(tmp_path / "two")
    assert explain_folder(explainer, "photos", out).done == 2
    assert explain_folder(explainer, tmp_path / "one" / "photos", out).already_recorded == 2
    monkeypatch.chdir(tmp_path / "one")
    refused(out, "relative_to was '.*two' and is", lambda: explain_folder(explainer, "photos", out))


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_run_that_did_nothing_binds_nobody(form: str, explainer: Explainer, photos: Path, out: Path) -> None:
    stop = threading.Event()
    stop.set()
    summary = explain_folder(explainer, photos, out, broken_jobs.settings(form, methods=["cam"]), stop=stop)
    assert (summary.done, summary.failed, summary.stopped) == (0, 0, "stopped") and not lines(out)
    summary = explain_folder(explainer, photos, out, broken_jobs.settings(form, methods=["gradcam"]))
    assert (summary.done, summary.failed, summary.stopped) == (COUNT - 3, 3, None)
    assert json.loads((out / "run.json").read_text())["methods"] == ["gradcam"]


@pytest.mark.parametrize("form", ["png", "npz"])
def test_other_images_into_the_same_folder(form: str, explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """They count for themselves, and run in batches of the same size as the first."""
    monday, tuesday = tmp_path / "monday", tmp_path / "tuesday"
    paths = [*write_images(monday, 9, 2), *write_images(tuesday, 8, 1)]
    first = explain_folder(explainer, monday, out, broken_jobs.settings(form))
    sizes: list[int] = []
    run = FolderJob(resolve_job(explainer, broken_jobs.settings(form, batch_size=4)), Inputs([tuesday], out), out)
    for outcome in run:
        sizes.append(1)
        assert run.done + run.failed == len(sizes) <= run.total == 8, outcome
    assert (first.done, first.failed) == (7, 2)
    assert (run.done, run.failed, run.already_recorded, run.stopped) == (7, 1, 0, False)
    again = explain_folder(explainer, [monday, tuesday], out, broken_jobs.settings(form))
    assert (again.done, again.failed, again.already_recorded) == (14, 3, 17)
    assert_complete(out, paths, form)


def test_the_end_of_a_run_that_was_told_to_stop(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    """An event that it was given stays as it is."""
    stop = threading.Event()
    summary = explain_folder(explainer, photos, tmp_path / "a", stop=stop, fail_fast=True)
    assert summary.stopped == "an image failed" and not stop.is_set()
    # Many more than can be in work when the first one's end is told.
    write_images(tmp_path / "many", 400)
    summary = explain_folder(
        explainer, tmp_path / "many", tmp_path / "c", stop=stop, progress=lambda done, _: stop.set()
    )
    assert summary.stopped == "stopped" and 0 < summary.done + summary.failed < 400
    stop.clear()
    last = [lambda done, total: stop.set() if done == total else None]
    summary = explain_folder(explainer, photos, tmp_path / "b", stop=stop, progress=last[0])
    assert summary.stopped is None and summary.done + summary.failed == COUNT


@pytest.mark.parametrize("form", FORMATS)
def test_shards_that_nobody_speaks_of_go(form: str, explainer: Explainer, photos: Path, out: Path) -> None:
    """Also in a run without shards: whoever reads all of them would take them for its results."""
    stop = threading.Event()
    stop.set()
    explain_folder(explainer, photos, out, broken_jobs.settings("npz"), stop=stop)
    (out / "shards").mkdir()
    (out / "shards" / "00007.npz").write_bytes(b"of a run that was killed before its lines were written")
    (out / "shards" / "mine.npz").write_bytes(b"")
    explain_folder(explainer, photos, out, broken_jobs.settings(form))
    assert "00007.npz" not in os.listdir(out / "shards") and (out / "shards" / "mine.npz").exists()


def test_shards_that_cannot_be_listed(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not gone."""
    copied(whole("npz"), out)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path).endswith("shards"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OutputError, match="shards: cannot be listed: Permission denied"):
        explain_folder(explainer, photos, out, broken_jobs.settings("npz"))


def test_the_failure_rate_counts_from_a_hundred_images_on(explainer: Explainer, tmp_path: Path) -> None:
    """The hundredth need not be the one that fails."""
    write_images(tmp_path / "photos", 400)
    for path in sorted((tmp_path / "photos").rglob("*.*"))[:99]:
        path.write_bytes(b"")
    summary = explain_folder(explainer, tmp_path / "photos", tmp_path / "out", max_failure_rate=0.05)
    assert summary.stopped == "99 of 100 images failed, more than 5 %"
    assert (summary.failed, summary.done < 300) == (99, True)
    summary = explain_folder(explainer, tmp_path / "photos", tmp_path / "out", max_failure_rate=0.05)
    assert summary.stopped is not None and summary.done < 300


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"format": "csv"}, "format must be one of png, jpg, webp, npz, parquet, not 'csv'"),
        ({"canvas": "full"}, "Unknown canvas 'full'; choose one of model, original"),
        ({"colormap": "rainbows"}, "rainbows"),
        ({"alpha": 2}, "alpha must be between 0 and 1, not 2"),
        ({"alpha": "0.5"}, "alpha must be between 0 and 1, not '0.5'"),
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
        ({"format": "npz", "shard_images": 0.5}, "shard_images must be a positive integer, not 0.5"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_done(
    chosen: dict[str, Any], words: str, explainer: Explainer, photos: Path, out: Path
) -> None:
    with pytest.raises(SeewhyError, match=words):
        explain_folder(explainer, photos, out, Settings(**chosen))
    assert not out.exists()


def test_a_model_that_takes_no_photographs(photos: Path, out: Path, tmp_path: Path) -> None:
    """It says so once, and not for each image."""
    with pytest.raises(ImageError, match="preprocess"):
        explain_folder(Tiny(preprocessing=None).save(tmp_path / "bare.onnx"), photos, out)
    assert not out.exists()


def test_what_changes_no_result_may_change(
    whole: Callable[[str], Path], explainer: Explainer, model_path: Path, photos: Path, paths: list[Path], out: Path
) -> None:
    manifest = copied(whole("npz"), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:4]))
    with_two = Explainer(model_path, threads=2)
    explain_folder(with_two, photos, out, broken_jobs.settings("npz", shard_images=2, batch_size=3))
    assert_same(out, whole("npz"), paths, "npz")
