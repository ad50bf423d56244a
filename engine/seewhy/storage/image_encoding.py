"""Encoding of the images that are written: format and quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any

from PIL import Image

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError, ImageError, OutputError
from seewhy.storage.format_names import FIGURE_FORMATS, QUALITY

# Of overlays of 224x224, level 1 takes a quarter of the default level's time for files 14% larger, level 4 half of the
# time for 1%. At level 6, writing a picture may take a third of what ResNet-50 takes to explain it.
_PNG_LEVEL = 1


@dataclass(frozen=True)
class _Format:
    pillow: str
    """Pillow's name of it."""
    side: int
    """The most pixels that a picture of it may be wide or high."""
    options: Mapping[str, Any]
    has_quality: bool


_FORMATS = {
    "png": _Format("PNG", 2**31 - 1, {"compress_level": _PNG_LEVEL}, False),
    "jpg": _Format("JPEG", 65500, {}, True),  # libjpeg's limit; the format itself would hold 65535
    "webp": _Format("WEBP", 16383, {}, True),
}


@dataclass(frozen=True)
class Encoding:
    """Format and quality of figures: `format` is one of `FIGURE_FORMATS`, `quality` (1 to 100) is for jpg and webp.

    Raises:
        ArgumentError: If the format is unknown, or the quality is out of range or given for png.
        OutputError: If this installation of Pillow cannot write the format.
    """

    format: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ArgumentError(f"no picture format {brief(self.format)}; there are {', '.join(FIGURE_FORMATS)}")
        known = _FORMATS[self.format]
        Image.init()
        if known.pillow not in Image.SAVE:
            raise OutputError(f"this installation of Pillow cannot write {self.format}; choose another format")
        if self.quality is None:
            return
        if not known.has_quality:
            raise ArgumentError(
                f"{self.format} loses nothing and has no quality; leave the quality out, or choose jpg or webp"
            )
        if not is_integer(self.quality) or not 1 <= self.quality <= 100:
            raise ArgumentError(f"quality must be an integer from 1 to 100, not {brief(self.quality)}")
        object.__setattr__(self, "quality", int(self.quality))  # a NumPy integer could not be written to run.json

    def save(self, picture: Image.Image, file: IO[bytes]) -> None:
        known = _FORMATS[self.format]
        options = dict(known.options)
        if known.has_quality:
            options["quality"] = QUALITY if self.quality is None else self.quality
        picture.save(file, known.pillow, **options)

    def check(self, size: tuple[int, int], path: PurePath) -> None:
        """Raises:
        ImageError: a picture of this size cannot be written in this format.
        """
        side = _FORMATS[self.format].side
        if max(size) > side:
            raise ImageError(
                f"{path}: {size[0]}x{size[1]} pixels, but {self.format} takes at most {side} a side; choose png"
            )


PNG = Encoding()
