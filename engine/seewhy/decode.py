"""Decode a photograph of any kind to 8-bit RGB or grey, upright."""

from __future__ import annotations

import errno
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .arrays import Bytes
from .contract import MAX_PIXELS
from .errors import ImageError
from .regular_files import FileStamp, open_regular
from .text import short

# Photographs, and nothing that runs another program (EPS starts Ghostscript) or draws vectors.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that swap width and height.
_SIDEWAYS = (5, 6, 7, 8)
_WHITE = (255, 255, 255, 255)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """The file name extensions, lower case with the dot, of the formats that are decoded here."""
    return frozenset(ext for ext, name in Image.registered_extensions().items() if name in _formats())


class _WithoutWarnings:
    """Keeps what Pillow's Python code warns of, in metadata mostly, from being shown while something is decoded.

    `warnings.catch_warnings` is not for threads: where they leave in another order than they came, wrong filters stay.
    Nor should others' warnings be shown again, as they are after a call of `filterwarnings`.
    """

    _FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                cast("list[Any]", warnings.filters).insert(0, self._FILTER)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            filters = cast("list[Any]", warnings.filters)
            # More than one, where somebody restored a copy of the filters that was made in between.
            while not self._inside and self._FILTER in filters:
                filters.remove(self._FILTER)


_without_warnings = _WithoutWarnings()


@dataclass(frozen=True)
class Decoded:
    """An image, upright, and what size it had before a decoder made it smaller."""

    image: Image.Image
    size: tuple[int, int]
    """(width, height), upright."""
    stamp: FileStamp | None = None
    """Stamp of the file that was read; None for an image that does not come from a file."""


Smaller: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]
"""(width, height) of a whole image -> the size that it will be resized to."""


def decode_file(path: str | os.PathLike[str], mode: str, smaller: Smaller | None = None) -> Decoded:
    """Decode an image file to `mode` ("RGB" or "L"); see `decode_image`.

    With `smaller` a JPEG is decoded at a half, a quarter or an eighth of its size where that is no less than what it
    will be resized to: in less time, to other pixels.

    Raises:
        ImageError: the file is missing, unreadable, empty, damaged, too large, or of no known format.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            stamp = FileStamp.of(os.fstat(file.fileno()))
            if stamp.size == 0:
                raise ImageError(f"{path}: the file is empty")
            return replace(_decode_stream(file, mode, str(path), smaller), stamp=stamp)
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, not an image") from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # of which the image knows nothing
            raise
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path that no system takes
        raise ImageError(f"{path}: cannot be read: {error}") from None


def decode_bytes(content: bytes, mode: str, name: str, smaller: Smaller | None = None) -> Decoded:
    """The same for a file's content; `name` is for errors."""
    if not content:
        raise ImageError(f"{name}: the file is empty")
    return _decode_stream(io.BytesIO(content), mode, name, smaller)


def _decode_stream(file: IO[bytes], mode: str, name: str, smaller: Smaller | None) -> Decoded:
    try:
        with _without_warnings:
            return _decode_open(file, mode, name, smaller)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_PIXELS} pixels; refused as a decompression bomb") from None
    except MemoryError:
        raise ImageError(f"{name}: too little memory to decode it") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {short(error.strerror or str(error))}") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{name}: damaged image: {_reason(error)}") from error


def _decode_open(file: IO[bytes], mode: str, name: str, smaller: Smaller | None) -> Decoded:
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in a format that can be read, or a damaged one") from None
    _check_size(image.size, name)
    whole = None
    if smaller is not None and image.format == "JPEG":
        turned = _orientation(image) in _SIDEWAYS
        whole = image.size[::-1] if turned else image.size
        wanted = smaller(whole)
        image.draft(mode, wanted[::-1] if turned else wanted)
    upright = decode_image(image, mode, name)
    return Decoded(upright, upright.size if whole is None else whole)


def _reason(error: Exception) -> str:
    # What Pillow raises may quote the file, or say nothing at all.
    return short(str(error)) or type(error).__name__


def decode_image(image: Image.Image, mode: str, name: str) -> Image.Image:
    """Return `image` upright (by its EXIF orientation) in `mode`, "RGB" or "L"; `name` is for errors.

    For images without transparency, in the modes that hold 8 bits a channel, the pixels are those of Pillow's
    `convert(mode)`. Transparent pixels are laid on white, as a viewer shows them (`convert` would bring out the colours
    hidden under them). 16-bit grey is scaled to 8 bits; so are floating-point pixels, from 0..1 or 0..255. The image
    handed in is not modified. Of an animation, the frame that is current is taken.

    Raises:
        ImageError: the image is damaged, too large, empty, or of a mode that has no meaning as a photograph.
    """
    _check_size(image.size, name)
    try:
        with _without_warnings:
            image.load()
            return _upright(image, _to_mode(image, mode, name))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: too little memory to decode its {image.width}x{image.height} pixels") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(
            f"{name}: damaged image, or one of a kind that cannot be converted: {_reason(error)}"
        ) from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} pixels are more than {MAX_PIXELS}; refused as a decompression bomb")
    if width == 0 or height == 0:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height})")


def _orientation(image: Image.Image) -> int:
    try:
        orientation: int = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  EXIF that cannot be read says nothing about orientation; the pixels are good
        return 1
    return orientation


def _upright(image: Image.Image, converted: Image.Image) -> Image.Image:
    step = _TRANSPOSE.get(_orientation(image))
    return converted if step is None else converted.transpose(step)


def _to_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        grey = np.asarray(image)
        image = Image.fromarray(_float_to_byte(grey, name) if image.mode == "F" else _integer_to_byte(grey, name))
    elif image.has_transparency_data:
        image = _on_white(image)
    return image if image.mode == mode else image.convert(mode)


# Pixels at a time where a step needs several bytes more for each.
_STRIP = 2**20


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of some rows after others."""
    rows = max(1, _STRIP // width)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _on_white(image: Image.Image) -> Image.Image:
    result = Image.new("RGB", image.size)
    for top, bottom in _strips(*image.size):
        part = image.crop((0, top, image.width, bottom)).convert("RGBA")
        part = Image.alpha_composite(Image.new("RGBA", part.size, _WHITE), part)
        result.paste(part.convert("RGB"), (0, top))
    return result


def _integer_to_byte(pixels: NDArray[np.generic], name: str) -> Bytes:
    """16-bit grey, which Pillow keeps in 16 or 32 bits, to 8 bits: 65535 becomes 255."""
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: integer pixels from {low} to {high}, expected 0 to 65535; scale them to 8 bits first"
        )
    result = np.empty(pixels.shape, np.uint8)
    for top, bottom in _strips(pixels.shape[1], pixels.shape[0]):
        result[top:bottom] = (pixels[top:bottom].astype(np.uint32) * 2 + 257) // 514  # value / 257, rounded to nearest
    return result


def _float_to_byte(pixels: NDArray[np.generic], name: str) -> Bytes:
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):  # NaN fails as well
        raise ImageError(f"{name}: floating-point pixels from {low:g} to {high:g}, expected 0 to 1 or 0 to 255")
    result = np.empty(pixels.shape, np.uint8)
    for top, bottom in _strips(pixels.shape[1], pixels.shape[0]):
        result[top:bottom] = np.rint(pixels[top:bottom].astype(np.float64) * (255 if high <= 1 else 1))
    return result
