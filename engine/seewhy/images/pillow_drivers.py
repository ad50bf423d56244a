"""Recognise images that a driver of Pillow opened, without importing the driver."""

from __future__ import annotations

import sys
from typing import Any, Literal

from PIL import Image


def opened_by(driver: Literal["Jpeg2K", "Png", "Tiff"], image: Image.Image) -> Any:
    """Return an image if it is of the class of a driver, for example `PIL.PngImagePlugin.PngImageFile`.

    A driver that is not imported cannot have opened an image. Importing it takes time and memory, and most programs
    explain JPEG files.

    Args:
        driver: Beginning of the names of the driver's module and of its class.
        image: Any image.

    Returns:
        The image with the attributes of the driver's class, or None for other images and for copies.
    """
    kind = getattr(sys.modules.get(f"PIL.{driver}ImagePlugin"), f"{driver}ImageFile", None)
    return image if kind is not None and isinstance(image, kind) else None
