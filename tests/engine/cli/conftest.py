"""Fixtures of the command line tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Photo = Callable[..., Image.Image]


@pytest.fixture
def cat(tmp_path: Path, photo: Photo) -> Path:
    """Write an image to cat.jpg."""
    path = tmp_path / "cat.jpg"
    photo().save(path)
    return path
