"""Fixture of the command line tests: an image file to explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Photo = Callable[..., Image.Image]


@pytest.fixture
def cat(tmp_path: Path, photo: Photo) -> Path:
    path = tmp_path / "cat.jpg"
    photo().save(path)
    return path
