"""Fixtures of the command line tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def cat(tmp_path: Path, make_image: MakeImage) -> Path:
    """Write an image to cat.jpg."""
    path = tmp_path / "cat.jpg"
    make_image().save(path)
    return path
