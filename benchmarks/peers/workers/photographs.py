"""Writing pictures, for tools that leave that to the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def size_of(pixels: np.ndarray) -> tuple[int, int]:
    """(width, height) of (height, width, 3) pixels."""
    return pixels.shape[1], pixels.shape[0]


def save(picture: np.ndarray | Image.Image, folder: Path, stem: str, form: str) -> None:
    """`jpeg` of quality 90, else PNG with Pillow's defaults."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    if form == "jpeg":
        image.save(folder / f"{stem}.jpg", quality=90)
    else:
        image.save(folder / f"{stem}.png")
