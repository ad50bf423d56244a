"""Format and quality of the figures that are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from PIL import Image

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError, OutputError
from seewhy.storage.format_names import FIGURE_FORMATS, QUALITY

# For overlays of 224x224 pixels, level 1 takes a quarter of the default level's time and makes files 14 % larger; level
# 4 takes half of the time and makes them 1 % larger. At level 6, writing a figure may take a third of the time that
# ResNet-50 needs to explain the image.
_PNG_LEVEL = 1

Figure: TypeAlias = Image.Image | str
"""A figure to write: an image, or the text of an SVG document."""


@dataclass(frozen=True)
class _Format:
    """Image format in which figures can be written."""

    pillow: str
    """Pillow's name of the format."""
    max_side: int
    """Maximum width and height, in pixels."""
    options: Mapping[str, Any]
    """Arguments for Pillow's encoder."""
    has_quality: bool
    """True if the encoder has a quality setting."""


_FORMATS = {
    "png": _Format("PNG", 2**31 - 1, {"compress_level": _PNG_LEVEL}, False),
    "jpg": _Format("JPEG", 65500, {}, True),  # libjpeg's limit; the format itself would hold 65535
    "webp": _Format("WEBP", 16383, {}, True),
    "svg": _Format("", 2**31 - 1, {}, False),  # documents are written as they are
}


@dataclass(frozen=True)
class Encoding:
    """Format and quality of the figures that are written.

    Raises:
        ArgumentError: If the format is unknown, or the quality is out of range or given for png.
        OutputError: If this installation of Pillow cannot write the format.
    """

    format: str = "png"
    """One of FORMATS."""
    quality: int | None = None
    """Compression quality for jpg and webp, from 1 to 100; None means QUALITY."""

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ArgumentError(f"Unknown image format {brief(self.format)}; choose one of {', '.join(FIGURE_FORMATS)}")
        known = _FORMATS[self.format]
        Image.init()
        if known.pillow and known.pillow not in Image.SAVE:
            raise OutputError(f"this installation of Pillow cannot write {self.format}; choose another format")
        if self.quality is None:
            return
        if not known.has_quality:
            raise ArgumentError(
                f"{self.format} is lossless and has no quality; leave the quality out, or choose jpg or webp"
            )
        if not is_integer(self.quality) or not 1 <= self.quality <= 100:
            raise ArgumentError(f"quality must be an integer from 1 to 100, not {brief(self.quality)}")
        object.__setattr__(self, "quality", int(self.quality))  # a NumPy integer could not be written to run.json

    def save(self, figure: Figure, file: IO[bytes]) -> None:
        """Encode a figure into an open file.

        Args:
            figure: An image; for svg, the text of a document.
            file: File that is open for writing.
        """
        if isinstance(figure, str):
            file.write(figure.encode())
            return
        known = _FORMATS[self.format]
        options = dict(known.options)
        if known.has_quality:
            options["quality"] = QUALITY if self.quality is None else self.quality
        figure.save(file, known.pillow, **options)

    def problem(self, figure: Figure) -> str | None:
        """Return why the format does not allow a figure of this size, or None. An SVG document may have any."""
        max_side = _FORMATS[self.format].max_side
        if isinstance(figure, str) or max(figure.size) <= max_side:
            return None
        width, height = figure.size
        return f"{width}x{height} pixels, but {self.format} allows at most {max_side} per side; choose png"


PNG = Encoding()
"""The default encoding."""
