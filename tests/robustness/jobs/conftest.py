"""Fixtures of the job tests: images, and the results of an uninterrupted job to compare with."""

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
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 13 images, 3 of them damaged."""
    folder = tmp_path_factory.mktemp("jobs") / "photos"
    write_images(folder, 13, 3)
    return folder


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[Path]:
    return sorted(path for path in photos.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def whole(explainer: Explainer, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the output folder of an uninterrupted job in a format."""
    made: dict[str, Path] = {}

    def find(form: str) -> Path:
        if form not in made:
            made[form] = tmp_path_factory.mktemp("whole") / form
            explain_folder(explainer, photos, made[form], broken_jobs.settings(form))
        return made[form]

    return find


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the wait for the disk, which takes longer than all the rest; no test here is about power failures."""
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
def place(tmp_path: Path) -> Path:
    """Return a folder with a neighbor; jobs write into `out` in it, and nowhere else."""
    (tmp_path / "place" / "neighbour").mkdir(parents=True)
    (tmp_path / "place" / "neighbour" / "file").write_text("mine")
    (tmp_path / "place" / "in").mkdir()
    return tmp_path / "place"
