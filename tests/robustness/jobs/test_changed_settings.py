"""Tests of jobs that are resumed with other settings, models, software or images: results are never mixed."""

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
        ({"blend": "heat", "alpha": 0.5}, "blend was 'constant' and is 'heat' now"),
        ({"plain": True}, "figures was 'captioned' and is 'plain' now"),
        ({"scale": 2}, "scale was not given and is 2.0 now"),
        ({"gradient_scaling": "minmax"}, "gradient_scaling was 'robust' and is 'minmax' now"),
        ({"sheet": "always"}, "sheet was 'auto' and is 'always' now"),
        ({"fast_decode": True}, "decode was 'exact' and is 'fast' now"),
        ({"format": "npz"}, "format was 'png' and is 'npz' now"),
    ],
)
def test_different_settings_are_refused(
    changed: dict[str, Any],
    words: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
) -> None:
    copied(uninterrupted("png"), out)
    refused(out, words, lambda: explain_folder(explainer, image_folder, out, Settings(**changed)))


def test_a_different_option_of_a_method_is_refused(explainer: Explainer, paths: list[Path], out: Path) -> None:
    def run(samples: int) -> None:
        settings = Settings(["smoothgrad"], options={"smoothgrad": {"samples": samples}})
        explain_folder(explainer, paths[:2], out, settings)

    run(2)
    refused(out, "options.smoothgrad.samples was 2 and is 3 now", lambda: run(3))


def test_a_different_model_is_refused(
    uninterrupted: Callable[[str], Path], image_folder: Path, out: Path, tmp_path: Path
) -> None:
    copied(uninterrupted("png"), out)
    other = Explainer(Tiny(seed=1).save(tmp_path / "other.onnx"), threads=1)
    refused(out, r"model\.sha256 was '\w+' and is", lambda: explain_folder(other, image_folder, out))


@pytest.mark.parametrize("key", ["versions.seewhy", "versions.onnxruntime", "versions.pillow", "versions.numpy"])
def test_different_software_is_refused(
    key: str, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    copied(uninterrupted("png"), out)
    facts = json.loads((out / "run.json").read_text())
    facts["versions"][key.partition(".")[2]] = "0.0.1"
    (out / "run.json").write_text(json.dumps(facts))
    refused(out, f"{re.escape(key)} was '0.0.1' and is", lambda: explain_folder(explainer, image_folder, out))


def test_other_images_at_the_same_relative_paths_are_refused(
    explainer: Explainer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        write_images(tmp_path / name / "images", 2)
    monkeypatch.chdir(tmp_path / "one")
    assert explain_folder(explainer, "images", out).done == 2
    monkeypatch.chdir(tmp_path / "two")
    refused(
        out,
        "relative paths start at .*one, and the same paths from .*two lead to other or changed files",
        lambda: explain_folder(explainer, "images", out),
    )
    assert explain_folder(explainer, tmp_path / "one" / "images", tmp_path / "other").done == 2


def test_absolute_and_relative_paths(
    explainer: Explainer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute paths mean the same image in every working directory."""
    for name in ("one", "two"):
        write_images(tmp_path / name / "images", 2)
    explain_folder(explainer, tmp_path / "one" / "images", out)
    monkeypatch.chdir(tmp_path / "two")
    assert explain_folder(explainer, "images", out).done == 2
    assert explain_folder(explainer, tmp_path / "one" / "images", out).already_recorded == 2
    monkeypatch.chdir(tmp_path / "one")
    assert explain_folder(explainer, "images", out).already_recorded == 2
    assert json.loads((out / "run.json").read_text())["relative_to"] == str(tmp_path / "two")


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_job_without_results_allows_other_settings(
    form: str, explainer: Explainer, image_folder: Path, out: Path
) -> None:
    stop = threading.Event()
    stop.set()
    summary = explain_folder(explainer, image_folder, out, broken_jobs.settings(form, methods=["cam"]), stop=stop)
    assert (summary.done, summary.failed, summary.stopped) == (0, 0, "stopped") and not lines(out)
    summary = explain_folder(explainer, image_folder, out, broken_jobs.settings(form, methods=["gradcam"]))
    assert (summary.done, summary.failed, summary.stopped) == (COUNT - 3, 3, None)
    assert json.loads((out / "run.json").read_text())["methods"] == ["gradcam"]


@pytest.mark.parametrize("form", ["png", "npz"])
def test_other_images_into_the_same_folder(form: str, explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """The second job counts only its own images, and its batch size may differ."""
    monday, tuesday = tmp_path / "monday", tmp_path / "tuesday"
    paths = [*write_images(monday, 9, 2), *write_images(tuesday, 8, 1)]
    first = explain_folder(explainer, monday, out, broken_jobs.settings(form))
    sizes: list[int] = []
    job = FolderJob(resolve_job(explainer, broken_jobs.settings(form, batch_size=4)), Inputs([tuesday], out), out)
    for outcome in job:
        sizes.append(1)
        assert job.done + job.failed == len(sizes) <= job.total == 8, outcome
    assert (first.done, first.failed) == (7, 2)
    assert (job.done, job.failed, job.already_recorded, job.stopped) == (7, 1, 0, False)
    again = explain_folder(explainer, [monday, tuesday], out, broken_jobs.settings(form))
    assert (again.done, again.failed, again.already_recorded) == (14, 3, 17)
    assert_complete(out, paths, form)


def test_stopping_a_job(explainer: Explainer, image_folder: Path, tmp_path: Path) -> None:
    """A job never changes the `stop` event. It stops early only while images are left."""
    stop = threading.Event()
    summary = explain_folder(explainer, image_folder, tmp_path / "a", stop=stop, fail_fast=True)
    assert summary.stopped == "an image failed" and not stop.is_set()
    # Write many more images than can be in progress when the first one is reported.
    write_images(tmp_path / "many", 400)
    summary = explain_folder(
        explainer, tmp_path / "many", tmp_path / "c", stop=stop, progress=lambda done, _: stop.set()
    )
    assert summary.stopped == "stopped" and 0 < summary.done + summary.failed < 400
    stop.clear()

    def stop_after_last(done: int, total: int | None) -> None:
        if done == total:
            stop.set()

    summary = explain_folder(explainer, image_folder, tmp_path / "b", stop=stop, progress=stop_after_last)
    assert summary.stopped is None and summary.done + summary.failed == COUNT


@pytest.mark.parametrize("form", FORMATS)
def test_shards_without_manifest_lines_are_deleted(
    form: str, explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """They are deleted even by a job in another format, because readers of the folder would take them for results."""
    stop = threading.Event()
    stop.set()
    explain_folder(explainer, image_folder, out, broken_jobs.settings("npz"), stop=stop)
    (out / "shards").mkdir()
    (out / "shards" / "00007.npz").write_bytes(b"of a run that was killed before its lines were written")
    (out / "shards" / "mine.npz").write_bytes(b"")
    explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
    assert "00007.npz" not in os.listdir(out / "shards") and (out / "shards" / "mine.npz").exists()


def test_shards_that_cannot_be_listed(
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shards in a folder that cannot be listed do not count as missing."""
    copied(uninterrupted("npz"), out)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path).endswith("shards"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OutputError, match="shards: cannot be listed: Permission denied"):
        explain_folder(explainer, image_folder, out, broken_jobs.settings("npz"))


def test_the_failure_rate_counts_after_a_hundred_images(explainer: Explainer, tmp_path: Path) -> None:
    """The job stops at the hundredth image, even if that image itself succeeds."""
    write_images(tmp_path / "images", 400)
    for path in sorted((tmp_path / "images").rglob("*.*"))[:99]:
        path.write_bytes(b"")
    summary = explain_folder(explainer, tmp_path / "images", tmp_path / "out", max_failure_rate=0.05)
    assert summary.stopped == "99 of 100 images failed, more than 5 %"
    assert (summary.failed, summary.done < 300) == (99, True)
    summary = explain_folder(explainer, tmp_path / "images", tmp_path / "out", max_failure_rate=0.05)
    assert summary.stopped is not None and summary.done < 300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "csv"}, "Unknown format 'csv'; choose one of png, jpg, webp, svg, npz, parquet"),
        ({"canvas": "full"}, "Unknown canvas 'full'; choose one of model, original"),
        ({"colormap": "rainbows"}, "rainbows"),
        ({"alpha": 2}, "alpha must be between 0 and 1, not 2"),
        ({"alpha": "0.5"}, "alpha must be between 0 and 1, not '0.5'"),
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
        ({"format": "npz", "shard_images": 0.5}, "shard_images must be a positive integer, not 0.5"),
    ],
)
def test_invalid_settings_are_refused_before_the_job_starts(
    settings: dict[str, Any], words: str, explainer: Explainer, image_folder: Path, out: Path
) -> None:
    with pytest.raises(SeewhyError, match=words):
        explain_folder(explainer, image_folder, out, Settings(**settings))
    assert not out.exists()


def test_a_model_without_preprocessing(image_folder: Path, out: Path, tmp_path: Path) -> None:
    """The job fails with one error instead of one failure per image."""
    with pytest.raises(ImageError, match="preprocess"):
        explain_folder(Tiny(preprocessing=None).save(tmp_path / "bare.onnx"), image_folder, out)
    assert not out.exists()


def test_settings_that_change_no_result_may_change(
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    model_path: Path,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    manifest = copied(uninterrupted("npz"), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:4]))
    two_threads = Explainer(model_path, threads=2)
    explain_folder(two_threads, image_folder, out, broken_jobs.settings("npz", shard_images=2, batch_size=3))
    assert_same(out, uninterrupted("npz"), paths, "npz")
