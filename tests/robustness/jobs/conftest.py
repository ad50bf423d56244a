"""Fixtures of the job tests: images, and the output of an uninterrupted job to compare with."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seewhy import Explainer, explain_folder
from support.jobs import broken_jobs
from support.jobs.broken_jobs import write_images


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 13 images, 3 of them damaged."""
    folder = tmp_path_factory.mktemp("jobs") / "images"
    write_images(folder, 13, 3)
    return folder


@pytest.fixture(scope="module")
def paths(image_folder: Path) -> list[Path]:
    return sorted(path for path in image_folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def uninterrupted(
    explainer: Explainer, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that returns the output folder of an uninterrupted job in the given format."""
    folders: dict[str, Path] = {}

    def run_job(form: str) -> Path:
        if form not in folders:
            folders[form] = tmp_path_factory.mktemp("uninterrupted") / form
            explain_folder(explainer, image_folder, folders[form], broken_jobs.settings(form))
        return folders[form]

    return run_job


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable fsync, which would take most of the time; no test here is about power failures."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """Return a folder with `in`, `neighbour` and `neighbour/file`; jobs may write only into `out` in this folder."""
    (tmp_path / "sandbox" / "neighbour").mkdir(parents=True)
    (tmp_path / "sandbox" / "neighbour" / "file").write_text("mine")
    (tmp_path / "sandbox" / "in").mkdir()
    return tmp_path / "sandbox"
