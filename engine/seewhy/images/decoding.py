"""Decode a photograph of any kind to 8-bit RGB or grey, upright."""

from __future__ import annotations

import errno
import io
import os
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from seewhy._shared.regular_files import FileStamp, open_regular
from seewhy._shared.text import short
from seewhy.contract.constants import MAX_PIXELS
from seewhy.errors import ImageError
from seewhy.images.jpeg2000_bits import refuse_misread_jpeg2000
from seewhy.images.pixel_depth import float_to_byte, integer_to_byte
from seewhy.images.tiff_kind import TiffKind, refuse_misread_tiff, tiff_kind, unopened_tiff, with_byte_palette
from seewhy.images.transparency import Colour, on_white, transparent_colour

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
        tiff = unopened_tiff(file)
        if tiff is not None:
            raise ImageError(
                f"{name}: {tiff} cannot be decoded, or is damaged; convert it to RGB or BlackIsZero of 8 or 16 bits"
            ) from None
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
    hidden under them). 12-bit and 16-bit grey is scaled to 8 bits; so are floating-point pixels, from 0..1 or 0..255.
    The image handed in is not modified. Of an animation, the frame that is current is taken.

    The depth and the photometric interpretation of a TIFF are read from the tags that Pillow attaches to an image it
    opened. A copy of that image has lost them: its integers are taken as 16-bit grey, 0 being black.

    Raises:
        ImageError: the image is damaged, too large, empty, or of a mode that has no meaning as a photograph.
    """
    _check_size(image.size, name)
    tiff: TiffKind | None = None
    try:
        with _without_warnings:
            tiff = tiff_kind(image)
            refuse_misread_tiff(image, name)
            refuse_misread_jpeg2000(image, name)
            transparent = transparent_colour(image, name)
            image.load()
            return _upright(image, _to_mode(image, mode, name, transparent))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: too little memory to decode its {image.width}x{image.height} pixels") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        kind = "a kind that cannot be converted" if tiff is None else f"a kind that cannot be decoded, {tiff}"
        raise ImageError(f"{name}: damaged image, or one of {kind}: {_reason(error)}") from error


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


def _to_mode(image: Image.Image, mode: str, name: str, transparent: Colour) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _deep_grey(image, name, transparent)
    elif image.has_transparency_data:
        image = on_white(with_byte_palette(image), transparent)
    elif image.mode == "LAB":  # which Pillow converts to colour only
        image = image.convert("RGB")
    else:
        image = with_byte_palette(image)
    return image if image.mode == mode else image.convert(mode)


def _deep_grey(image: Image.Image, name: str, transparent: Colour) -> Image.Image:
    """Return grey of more than 8 bits as 8 bits, its transparent colour as white."""
    grey = np.asarray(image)
    kind = tiff_kind(image)
    if image.mode == "F":
        result = float_to_byte(grey, name)
    else:
        result = integer_to_byte(grey, name, 65535 if kind is None else kind.white)
    if kind is not None and kind.white_is_zero:
        np.subtract(255, result, out=result)
    if isinstance(transparent, int):
        result[grey == transparent] = 255
    return Image.fromarray(result)
