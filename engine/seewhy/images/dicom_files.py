"""Decode DICOM files with a single frame, with pydicom.

Grey values go through the steps of a viewer (DICOM PS3.3, C.11 and C.7.6.3): the modality transformation (rescale slope
and intercept), the first window or lookup table of the file, and inversion for MONOCHROME1. Without a window, the whole
range of the stored bits is shown.
"""

from __future__ import annotations

from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy._shared.arrays import Bytes
from seewhy._shared.extras import missing_extra
from seewhy._shared.text import short
from seewhy.errors import ImageError
from seewhy.images.pixel_depth import row_strips

EXTENSIONS = (".dcm", ".dicom")
_MAGIC_START, _MAGIC = 128, b"DICM"
HEADER_SIZE = _MAGIC_START + len(_MAGIC)
"""Number of bytes by which a file is recognised."""
_DEFLATED = "1.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def is_dicom(header: bytes) -> bool:
    """Return whether a file is DICOM, from its first `HEADER_SIZE` bytes. Its name does not matter."""
    return header[_MAGIC_START:HEADER_SIZE] == _MAGIC


def read_size(file: IO[bytes], name: str) -> tuple[int, int]:
    """Read the size of the image in a DICOM file without reading its pixels.

    Args:
        file: The open file.
        name: Name of the image in error messages.

    Returns:
        (width, height) in pixels.

    Raises:
        ImageError: If the file is compressed as a whole, holds no image or several frames.
        MissingExtraError: If pydicom is not installed.
        Exception: If the file is damaged.
    """
    try:
        import pydicom
        from pydicom.filereader import _read_file_meta_info
    except ImportError:
        raise missing_extra(f"{name}: DICOM images need an extra", "dicom") from None
    file.seek(HEADER_SIZE)
    if _read_file_meta_info(cast(BinaryIO, file)).get("TransferSyntaxUID") == _DEFLATED:
        # pydicom would inflate the whole file at once, which a small file can use to fill the memory.
        raise ImageError(f"{name}: deflated DICOM files are not supported; store it uncompressed")
    file.seek(0)
    data = pydicom.dcmread(file, stop_before_pixels=True)
    if "Rows" not in data or "Columns" not in data:
        raise _no_image(name)
    frames = int(data.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"{name}: the DICOM file holds {frames} frames; write each frame to a file of its own")
    return int(data.Columns), int(data.Rows)


def _no_image(name: str) -> ImageError:
    return ImageError(f"{name}: the DICOM file holds no image with integer pixels")


def decode(file: IO[bytes], name: str) -> Image.Image:
    """Decode the pixels of a DICOM file.

    Args:
        file: The open file, which `read_size` accepts.
        name: Name of the image in error messages.

    Returns:
        The image as a viewer shows it, in mode L or RGB.

    Raises:
        ImageError: If the file holds no pixels, no decoder for the compressed pixels is installed, the pixels do not
            fit their description, or their kind is not supported.
        Exception: If the file is damaged.
    """
    import pydicom

    file.seek(0)
    data = pydicom.dcmread(file)
    if "PixelData" not in data:
        raise _no_image(name)
    kind = str(data.PhotometricInterpretation)
    if kind not in (*_GREY, *_COLOUR):
        raise ImageError(f"{name}: DICOM pixels of the kind {short(kind)} are not supported; convert it to MONOCHROME2")
    pixels = _stored_pixels(data, name)
    expected = (int(data.Rows), int(data.Columns))
    is_colour = kind in _COLOUR and kind != "PALETTE COLOR"
    if pixels.shape != ((*expected, 3) if is_colour else expected):
        raise ImageError(f"{name}: damaged image: its {kind} pixels have the shape {pixels.shape}")
    if kind in _GREY:
        shown = np.empty(pixels.shape, np.uint8)
        for top, bottom in row_strips(pixels.shape[1], pixels.shape[0]):
            shown[top:bottom] = _grey(pixels[top:bottom], data, name, inverted=kind == "MONOCHROME1")
        return Image.fromarray(shown)
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        bits = int(data.RedPaletteColorLookupTableDescriptor[2])
        shown = np.empty((*pixels.shape, 3), np.uint8)
        for top, bottom in row_strips(pixels.shape[1], pixels.shape[0]):
            colours = apply_color_lut(pixels[top:bottom], data)
            shown[top:bottom] = _to_byte(colours.astype(np.float64), 0, 2**bits - 1)
        return Image.fromarray(shown)
    if pixels.dtype != np.uint8 or int(data.BitsStored) != 8:
        raise ImageError(f"{name}: DICOM colour of {int(data.BitsStored)} bits is not supported; convert it to 8 bits")
    return Image.fromarray(pixels)


def _stored_pixels(data: Any, name: str) -> NDArray[Any]:
    """Return the stored values, with shape (H, W), or (H, W, 3) in RGB."""
    try:
        pixels: NDArray[Any] = data.pixel_array
    except (NotImplementedError, RuntimeError) as error:
        syntax = data.file_meta.TransferSyntaxUID
        if not syntax.is_compressed or isinstance(error, RecursionError):
            raise
        raise ImageError(
            f"{name}: its pixels are compressed with {short(syntax.name)}, which cannot be decoded here; store it "
            f"uncompressed, or install a decoder for pydicom, such as pylibjpeg"
        ) from None
    return pixels


def _grey(stored: NDArray[Any], data: Any, name: str, inverted: bool) -> Bytes:
    """Return grey values as a viewer shows them."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    bits, signed = int(data.BitsStored), int(data.PixelRepresentation) == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = apply_modality_lut(stored, data)
    if data.get("VOILUTSequence"):
        low, high = 0, 2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
        shown = _to_byte(apply_voi(values, data).astype(np.float64), low, high)
    elif (window := _window(data)) is not None:
        shown = _windowed(values.astype(np.float64), *window, name)
    else:
        ends = apply_modality_lut(np.array([low, high], stored.dtype), data).astype(np.float64)
        shown = _to_byte(values.astype(np.float64), ends.min(), ends.max())
    return 255 - shown if inverted else shown


def _window(data: Any) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window, or None if the file has none."""
    if data.get("WindowCenter") is None or data.get("WindowWidth") is None:
        return None
    centre, width = (np.atleast_1d(np.array(data[name].value, float))[0] for name in ("WindowCenter", "WindowWidth"))
    return float(centre), float(width), str(data.get("VOILUTFunction") or "LINEAR")


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str, name: str) -> Bytes:
    """Return values in a window as grey (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    smallest = 1 if function == "LINEAR" else 0
    if not (np.isfinite([centre, width]).all() and width >= smallest and (width or smallest)):
        raise ImageError(f"{name}: damaged image: its window has the centre {centre:g} and the width {width:g}")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the window, the exponential is infinite and the result 0
            return _to_byte(1 / (1 + np.exp(-4 * (values - centre) / width)), 0, 1)
    if function == "LINEAR_EXACT":
        return _to_byte(values, centre - width / 2, centre + width / 2)
    if function == "LINEAR":
        middle, half = centre - 0.5, (width - 1) / 2
        return _to_byte(values, middle - half, middle + half)
    raise ImageError(f"{name}: damaged image: its window has the unknown function {short(function)}")


def _to_byte(values: NDArray[np.float64], low: float, high: float) -> Bytes:
    """Map values from low..high to 0..255, clipped and rounded; a range without width is a threshold."""
    if not np.isfinite(values).all():
        raise ValueError("its pixels are not finite")
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
