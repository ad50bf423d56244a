"""Tests of jobs that are resumed from another working folder, or after their folders were moved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from seewhy import Explainer, explain_folder
from support.jobs import broken_jobs
from support.jobs.broken_jobs import archive, lines, write_images
from support.jobs.resumed_jobs import refused

COUNT = 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with images in `photos`, and change into it."""
    folder = tmp_path / "project"
    write_images(folder / "photos", COUNT)
    monkeypatch.chdir(folder)
    return folder


def recorded_paths(out: Path) -> list[str]:
    return [line["path"] for line in lines(out)]


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize(
    ("working_folder", "images"),
    [
        ("..", "project/photos"),
        ("photos", "."),
        ("photos/0", "../../photos"),
        (".", "./photos"),
        ("/", "{project}/photos"),
    ],
)
def test_another_working_folder(
    working_folder: str, images: str, form: str, explainer: Explainer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files count as the same images, and lines of new images have the form of the first ones."""
    out = project / "out"
    settings = broken_jobs.settings(form)
    explain_folder(explainer, "photos", "out", settings)
    before = recorded_paths(out)
    added = project / "photos" / "1" / "new.png"
    shutil.copy(next((project / "photos" / "0").iterdir()), added)
    monkeypatch.chdir(working_folder)
    images = images.format(project=project)
    summary = explain_folder(explainer, images, out, settings)
    assert (summary.done, summary.already_recorded) == (COUNT + 1, COUNT)
    assert recorded_paths(out) == [*before, "photos/1/new.png"]
    assert explain_folder(explainer, images, out, settings).already_recorded == COUNT + 1
    monkeypatch.chdir(project)
    assert explain_folder(explainer, "photos", "out", settings).already_recorded == COUNT + 1


@pytest.mark.parametrize("copy", [False, True])
def test_a_project_that_was_moved(
    copy: bool, explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images and output folder keep their relative places, so the times of the images need not be the same."""
    explain_folder(explainer, "photos", "out")
    (shutil.copytree if copy else shutil.move)(project, tmp_path / "moved")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path / "moved")
    image = next((tmp_path / "moved" / "photos" / "0").iterdir())
    os.utime(image, (1, 1))
    assert explain_folder(explainer, "photos", "out").already_recorded == COUNT
    assert json.loads(Path("out/run.json").read_text())["relative_to"] == str(tmp_path / "moved")


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("count", [1, COUNT])
def test_a_copied_output_folder_beside_other_images(
    form: str, count: int, explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of the same names but other sizes are other images, even if only one of them is."""
    settings = broken_jobs.settings(form)
    explain_folder(explainer, "photos", "out", settings)
    other = shutil.copytree(project, tmp_path / "other")
    for image in sorted(path for path in (other / "photos").rglob("*") if path.is_file())[:count]:
        with image.open("ab") as file:
            file.write(b"x")
    monkeypatch.chdir(other)
    words = f"relative paths start at {project}, and the same paths from {other} lead to other or changed files"
    refused(other / "out", words, lambda: explain_folder(explainer, "photos", "out", settings))


def test_an_archive_beside_a_copied_output_folder(
    explainer: Explainer, project: Path, tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(project / "images.tar", ["a.png"], png)
    explain_folder(explainer, "images.tar", "out")
    other = shutil.copytree(project, tmp_path / "other")
    monkeypatch.chdir(other)
    assert explain_folder(explainer, "images.tar", "out").already_recorded == 1
    shutil.copytree(project / "out", tmp_path / "third" / "out")
    archive(tmp_path / "third" / "images.tar", ["a.png", *"bcdefghijklmnopqrstuvw"], png)
    monkeypatch.chdir(tmp_path / "third")
    words = f"same paths from {tmp_path}/third lead to other or changed files"
    refused(tmp_path / "third" / "out", words, lambda: explain_folder(explainer, "images.tar", "out"))


def test_new_images_from_another_working_folder(
    explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "tuesday", 2)
    explain_folder(explainer, "photos", "out")
    (project / "photos").rename(project / "monday")
    monkeypatch.chdir(tmp_path)
    summary = explain_folder(explainer, "tuesday", "project/out")
    assert (summary.done, summary.already_recorded) == (2, 0)
    assert [path[:11] for path in recorded_paths(project / "out")[COUNT:]] == ["../tuesday/"] * 2
    monkeypatch.chdir(project)
    assert explain_folder(explainer, "../tuesday", "out").already_recorded == 2


def test_absolute_paths_outside_the_first_folder_stay(explainer: Explainer, project: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "projects", 1)[0]
    explain_folder(explainer, "photos", "out")
    assert explain_folder(explainer, [project / "photos", other], "out").done == COUNT + 1
    assert recorded_paths(project / "out")[COUNT:] == [str(other)]


def test_images_that_were_moved(
    explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same if their sizes and modification times are. Otherwise they are other images."""
    out = tmp_path / "out"
    explain_folder(explainer, "photos", out)
    shutil.move(project, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    image = next(Path("photos/0").iterdir())
    times = image.stat()
    os.utime(image, (1, 1))
    words = (
        f"relative paths start at {project}, and the same paths from {tmp_path}/moved lead to other or changed files"
    )
    refused(out, words, lambda: explain_folder(explainer, "photos", out))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert explain_folder(explainer, "photos", out).already_recorded == COUNT
    assert explain_folder(explainer, "photos", out, changed=True).already_recorded == COUNT


def test_missing_images_are_not_taken_for_moved_ones(
    explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "list.txt").write_text("\n".join(str(path) for path in sorted(Path("photos").rglob("*.*"))))
    explain_folder(explainer, [], "out", lists=["list.txt"])
    monkeypatch.chdir(tmp_path)
    words = f"relative paths start at {project}, and the same paths from {tmp_path} lead to other or changed files"
    refused(project / "out", words, lambda: explain_folder(explainer, [], "project/out", lists=["project/list.txt"]))


def test_an_output_folder_that_was_moved(explainer: Explainer, project: Path, tmp_path: Path) -> None:
    explain_folder(explainer, "photos", "out")
    shutil.move(project / "out", tmp_path / "elsewhere")
    assert explain_folder(explainer, "photos", tmp_path / "elsewhere").already_recorded == COUNT


@pytest.mark.parametrize("arguments", [["images.tar"], ["images.tar", "photos"]])
def test_an_archive_from_another_working_folder(
    arguments: Sequence[str], explainer: Explainer, project: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(project / "images.tar", ["a.png", "b/../b.png"], png)
    explain_folder(explainer, arguments, "out")
    before = lines(project / "out")
    monkeypatch.chdir(project.parent)
    summary = explain_folder(explainer, [f"project/{one}" for one in arguments], "project/out")
    assert summary.already_recorded == len(before) and lines(project / "out") == before
    archive(project / "images.tar", ["a.png", "b/../b.png", "c.png"], png)
    summary = explain_folder(explainer, [f"project/{one}" for one in arguments], "project/out", changed=True)
    assert summary.done == len(before) + 1
    assert {path for path in recorded_paths(project / "out") if "#" in path} == {
        f"images.tar#{name}" for name in ("a.png", "b/../b.png", "c.png")
    }


def test_parent_folders_behind_links(explainer: Explainer, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`link/..` is the parent of the link's target, whose image is another one than that beside the link."""
    write_images(project / "far" / "inside", 1)
    write_images(project / "far", 1)
    write_images(project, 1)
    (project / "link").symlink_to("far/inside")
    assert explain_folder(explainer, "0", "out").done == 1
    summary = explain_folder(explainer, "link/../0", "out")
    assert (summary.done, summary.already_recorded) == (1, 0)
    assert recorded_paths(project / "out") == ["0/0000.png", "far/0/0000.png"]


def test_run_json_of_an_earlier_version(
    explainer: Explainer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks the path from the output folder."""
    explain_folder(explainer, "photos", "out")
    run = project / "out" / "run.json"
    facts = json.loads(run.read_text())
    del facts["from_output"]
    run.write_text(json.dumps(facts))
    monkeypatch.chdir(tmp_path)
    assert explain_folder(explainer, "project/photos", "project/out").already_recorded == COUNT
    assert json.loads(run.read_text())["from_output"] == ".."


@pytest.mark.parametrize("value", [3, None, "", "a\0b"])
def test_a_damaged_run_json(value: object, explainer: Explainer, project: Path) -> None:
    explain_folder(explainer, "photos", "out")
    run = project / "out" / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "relative_to": value}))
    refused(
        project / "out",
        "run.json: damaged: relative paths start at",
        lambda: explain_folder(explainer, "photos", "out"),
    )
