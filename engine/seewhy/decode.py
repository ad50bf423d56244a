"""Decode a photograph of any kind to 8-bit RGB or grey, upright."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .arrays import Bytes
from .contract import MAX_PIXELS
from .errors import ImageError

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
_WHITE = (255, 255, 255, 255)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """The file name extensions, lower case with the dot, of the formats that are decoded here."""
    return frozenset(ext for ext, name in Image.registered_extensions().items() if name in _formats())


def decode_file(path: str | os.PathLike[str], mode: str) -> Image.Image:
    """Decode an image file to `mode` ("RGB" or "L"); see `decode_image`.

    Raises:
        ImageError: the file is missing, unreadable, empty, damaged, too large, or of no known format.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path}: a folder, not an image")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with path.open("rb") as file:
            try:
                image = Image.open(file, formats=_formats())
            except UnidentifiedImageError:
                raise ImageError(f"{path}: not an image in a format that can be read, or a damaged one") from None
            return decode_image(image, mode, str(path))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_PIXELS} pixels; refused as a decompression bomb") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{path}: damaged image: {error}") from error


def decode_image(image: Image.Image, mode: str, name: str) -> Image.Image:
    """Return `image` upright (by its EXIF orientation) in `mode`, "RGB" or "L"; `name` is for errors.

    For images without transparency, in the modes that hold 8 bits a channel, the pixels are those of Pillow's
    `convert(mode)`. Transparent pixels are laid on white, as a viewer shows them (`convert` would bring out the colours
    hidden under them). 16-bit grey is scaled to 8 bits; so are floating-point pixels, from 0..1 or 0..255. The image
    handed in is not modified. Of an animation, the frame that is current is taken.

    Raises:
        ImageError: the image is damaged, too large, empty, or of a mode that has no meaning as a photograph.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} pixels are more than {MAX_PIXELS}; refused as a decompression bomb")
    if width == 0 or height == 0:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height})")
    try:
        image.load()
        return _upright(image, _to_mode(image, mode, name))
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{name}: damaged image, or one of a kind that cannot be converted: {error}") from error


def _upright(image: Image.Image, converted: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  EXIF that cannot be read says nothing about orientation; the pixels are good
        return converted
    step = _TRANSPOSE.get(orientation)
    return converted if step is None else converted.transpose(step)


def _to_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        grey = np.asarray(image)
        image = Image.fromarray(_float_to_byte(grey, name) if image.mode == "F" else _integer_to_byte(grey, name))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _integer_to_byte(pixels: NDArray[np.generic], name: str) -> Bytes:
    """16-bit grey, which Pillow keeps in 16 or 32 bits, to 8 bits: 65535 becomes 255."""
    values = pixels.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: integer pixels from {low} to {high}, expected 0 to 65535; scale them to 8 bits first"
        )
    return ((values * 2 + 257) // 514).astype(np.uint8)  # value / 257, rounded to nearest


def _float_to_byte(pixels: NDArray[np.generic], name: str) -> Bytes:
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # NaN fails as well
        raise ImageError(f"{name}: floating-point pixels from {low:g} to {high:g}, expected 0 to 1 or 0 to 255")
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
