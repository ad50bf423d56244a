"""Decode images into 8-bit RGB or grey pixels.

The EXIF orientation is applied, transparency is composited onto white, and deeper grey is scaled to 8 bits.
"""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from seewhy._shared.regular_files import FileStamp, open_regular
from seewhy._shared.text import short
from seewhy.contract.constants import MAX_PIXELS
from seewhy.errors import ImageError, MissingExtraError
from seewhy.images import dicom_files, heif_files
from seewhy.images.jpeg2000_bits import refuse_misread_jpeg2000
from seewhy.images.pixel_depth import float_to_byte, integer_to_byte
from seewhy.images.png_bits import significant_bits, white_of
from seewhy.images.tiff_kind import TiffKind, refuse_misread_tiff, tiff_kind, unopened_tiff, with_byte_palette
from seewhy.images.transparency import Colour, on_white, transparent_colour
from seewhy.images.unsupported_formats import REMEDIES, extension

# Raster formats only: EPS would start Ghostscript, another program, and WMF draws vectors.
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
# Orientations that swap width and height.
_ROTATED = (5, 6, 7, 8)


_JPEG = b"\xff\xd8\xff"
# Pillow loads the drivers of these formats first. Loading all drivers takes longer than decoding an image.
_COMMON_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM")


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this installation of Pillow can read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """Return the file name extensions of the supported formats, in lower case with the dot."""
    return frozenset(ext for ext, name in Image.registered_extensions().items() if name in _formats())


@cache
def listed_extensions() -> frozenset[str]:
    """Return the extensions of files that are listed as images: supported ones, and others that have a remedy."""
    return extensions() | REMEDIES.keys() | {*heif_files.EXTENSIONS, *dicom_files.EXTENSIONS}


class _IgnoreDecoderWarnings:
    """Context manager that ignores warnings of Pillow's and pydicom's Python code, which are mostly about metadata.

    `warnings.catch_warnings` is not safe with threads: if they leave in another order than they entered, the wrong
    filters stay. `filterwarnings` would show other modules' warnings again that were already shown.
    """

    # pydicom attributes its warnings to the module that calls it.
    _FILTER = ("ignore", None, Warning, re.compile(r"PIL\.|pydicom|pi_heif|seewhy\.images\.dicom_files"), 0)

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
            # The filter may be there more than once, if other code restored a copy of the list made in between.
            while not self._inside and self._FILTER in filters:
                filters.remove(self._FILTER)


_ignore_decoder_warnings = _IgnoreDecoderWarnings()


@dataclass(frozen=True)
class Decoded:
    """Decoded image, and the size of the whole image."""

    image: Image.Image
    """The upright image, which fast decoding may have reduced."""
    size: tuple[int, int]
    """(width, height) of the whole upright image, in pixels."""
    stamp: FileStamp | None = None
    """Stamp of the file, or None for an image that was not read from a file."""


ResizeRule: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]
"""Function from the (width, height) of a whole image to the (width, height) that it will be resized to."""


def decode_file(path: str | os.PathLike[str], mode: str, resize_rule: ResizeRule | None = None) -> Decoded:
    """Decode an image file, as `decode_image` does.

    Args:
        path: Path of the file.
        mode: Mode of the result: `RGB` or `L` (grey).
        resize_rule: Rule by which the image will be resized. If given, a JPEG is decoded at a half, a quarter or an
            eighth of its size, as long as that is not smaller than the final size. This is faster, but changes pixels.

    Returns:
        The decoded image.

    Raises:
        ImageError: If the file is missing, unreadable, empty, damaged, too large, or of an unsupported format.
        MissingExtraError: If the format needs an extra that is not installed.
    """
    path = path if isinstance(path, Path) else Path(path)
    try:
        with open_regular(path) as file:
            stamp = FileStamp.of(os.fstat(file.fileno()))
            if stamp.size == 0:
                raise ImageError(f"{path}: the file is empty")
            return replace(_decode_stream(file, mode, str(path), resize_rule), stamp=stamp)
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # too many open files: not a fault of the image
            raise
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path with a null character
        raise ImageError(f"{path}: cannot be read: {error}") from None


def decode_bytes(content: bytes, mode: str, name: str, resize_rule: ResizeRule | None = None) -> Decoded:
    """Decode the content of an image file, as `decode_file` does.

    Args:
        content: Bytes of the file.
        mode: Mode of the result: `RGB` or `L` (grey).
        name: Name of the image in error messages.
        resize_rule: Rule by which the image will be resized; see `decode_file`.

    Returns:
        The decoded image.

    Raises:
        ImageError: If the content is empty, damaged, too large, or of an unsupported format.
        MissingExtraError: If the format needs an extra that is not installed.
    """
    if not content:
        raise ImageError(f"{name}: the file is empty")
    return _decode_stream(io.BytesIO(content), mode, name, resize_rule)


def _decode_stream(file: IO[bytes], mode: str, name: str, resize_rule: ResizeRule | None) -> Decoded:
    """Decode an open file, and raise an ImageError for everything that can go wrong."""
    try:
        with _ignore_decoder_warnings:
            return _decode_open(file, mode, name, resize_rule)
    except (ImageError, MissingExtraError):
        raise
    except Image.DecompressionBombError as error:  # its message gives the size and the limit
        raise ImageError(f"{name}: refused as a decompression bomb: {short(str(error))}") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode the image") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {short(error.strerror or str(error))}") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{name}: damaged image: {_reason(error)}") from error


def _decode_open(file: IO[bytes], mode: str, name: str, resize_rule: ResizeRule | None) -> Decoded:
    """Decode an open file, and let exceptions of the decoders pass."""
    header = file.read(dicom_files.HEADER_SIZE)
    file.seek(0)
    if dicom_files.is_dicom(header):
        _check_size(dicom_files.read_size(file, name), name)
        upright = decode_image(dicom_files.decode(file, name), mode, name)
        return Decoded(upright, upright.size)
    if heif_files.is_heif(header):
        image = heif_files.open_heif(file, name)
        _check_size(image.size, name)
        image.load()  # the size may change; `decode_image` checks it again
        upright = decode_image(image, mode, name)
        return Decoded(upright, upright.size)
    try:
        image = _open(file, header)
        if image.format == "TIFF":  # camera raw files begin like a TIFF with a small preview
            _refuse_unsupported(name)
    except UnidentifiedImageError:
        _refuse_unsupported(name)
        tiff = unopened_tiff(file)
        if tiff is not None:
            raise ImageError(
                f"{name}: {tiff} cannot be decoded, or is damaged; convert it to RGB or BlackIsZero with 8 or 16 bits"
            ) from None
        raise ImageError(f"{name}: not an image in a supported format, or a damaged one") from None
    _check_size(image.size, name)
    whole = None
    if resize_rule is not None and image.format == "JPEG":
        rotated = _orientation(image) in _ROTATED
        whole = image.size[::-1] if rotated else image.size
        final = resize_rule(whole)
        image.draft(mode, final[::-1] if rotated else final)
    upright = decode_image(image, mode, name)
    return Decoded(upright, upright.size if whole is None else whole)


def _open(file: IO[bytes], header: bytes) -> Image.Image:
    """Open an image that begins with `header`, and load only the drivers of Pillow that it may need."""
    if header.startswith(_JPEG):
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as `Image.open`, which is called below then
            image = JpegImagePlugin.jpeg_factory(file, "")
            # The program may have set a lower limit than ours. `Image.open` refuses images of twice its size.
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > 2 * limit:
                raise Image.DecompressionBombError(f"{pixels} pixels exceed the program's limit of {2 * limit}")
            return image
        file.seek(0)
    Image.preinit()
    try:
        return Image.open(file, formats=_COMMON_FORMATS)
    except UnidentifiedImageError:
        return Image.open(file, formats=_formats())


def _refuse_unsupported(name: str) -> None:
    """Raise an ImageError if the extension of a file is that of a format that cannot be decoded."""
    if extension(name) not in extensions() and extension(name) in REMEDIES:
        raise ImageError(f"{name}: cannot be decoded: {REMEDIES[extension(name)]}") from None


def _reason(error: Exception) -> str:
    """Return the printable message of an exception of Pillow, which may quote the file, or its type if it has none."""
    return short(str(error)) or type(error).__name__


def decode_image(image: Image.Image, mode: str, name: str) -> Image.Image:
    """Convert a PIL image to upright 8-bit RGB or grey.

    If the image has 8 bits per channel and no transparency, the pixels equal those of Pillow's `convert(mode)`.
    Transparent pixels are composited onto white, as in a viewer; `convert` would show the colours hidden below them.
    12-bit and 16-bit grey is scaled to 8 bits, and so are floating-point pixels from 0..1 or 0..255. Of an animation,
    the current frame is used. The given image is not modified.

    The depth and the photometric interpretation of a TIFF are read from the tags that Pillow attaches to an image that
    it opened. A copy of such an image has lost them: its integers are read as 16-bit grey in which 0 is black.

    Args:
        image: The image.
        mode: Mode of the result: `RGB` or `L` (grey).
        name: Name of the image in error messages.

    Returns:
        The image in `mode`, rotated and flipped as its EXIF orientation says.

    Raises:
        ImageError: If the image is damaged, too large or empty, or its mode has no meaning as an image.
    """
    _check_size(image.size, name)
    tiff: TiffKind | None = None
    try:
        with _ignore_decoder_warnings:
            tiff = tiff_kind(image)
            refuse_misread_tiff(image, name)
            refuse_misread_jpeg2000(image, name)
            transparent = transparent_colour(image, name)
            bits = significant_bits(image)
            image.load()
            return _upright(image, _to_mode(image, mode, name, transparent, bits))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode {image.width}x{image.height} pixels") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        kind = "its kind cannot be converted" if tiff is None else f"its kind cannot be decoded ({tiff})"
        raise ImageError(f"{name}: damaged image, or {kind}: {_reason(error)}") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    """Raise an ImageError if an image of this (width, height) is too large or empty."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} pixels are more than {MAX_PIXELS}; refused as a decompression bomb")
    if width == 0 or height == 0:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height})")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 (upright) if there is none."""
    try:
        orientation: int = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  damaged EXIF has no orientation, but the pixels are usable
        return 1
    return orientation


def _upright(image: Image.Image, converted: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of `image` to `converted`."""
    operation = _TRANSPOSE.get(_orientation(image))
    return converted if operation is None else converted.transpose(operation)


def _to_mode(image: Image.Image, mode: str, name: str, transparent: Colour, bits: int | None) -> Image.Image:
    """Convert a loaded image to `mode`; `bits` is the depth that a 16-bit PNG states for its samples, or None."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _deep_grey(image, name, transparent, bits)
    elif image.has_transparency_data:
        image = on_white(with_byte_palette(image), transparent)
    elif image.mode == "LAB":  # Pillow converts LAB to RGB only
        image = image.convert("RGB")
    else:
        image = with_byte_palette(image)
    return image if image.mode == mode else image.convert(mode)


def _deep_grey(image: Image.Image, name: str, transparent: Colour, bits: int | None) -> Image.Image:
    """Scale grey of more than 8 bits to 8 bits, and make its transparent colour white."""
    grey = np.asarray(image)
    kind = tiff_kind(image)
    if image.mode == "F":
        result = float_to_byte(grey, name)
    else:
        result = integer_to_byte(grey, name, white_of(grey, bits) if kind is None else kind.white)
    if kind is not None and kind.white_is_zero:
        np.subtract(255, result, out=result)
    if isinstance(transparent, int):
        result[grey == transparent] = 255
    return Image.fromarray(result)
