"""Scale integer and floating-point grey to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Bytes
from seewhy.errors import ImageError

STRIP = 2**20
"""Number of pixels to convert at a time in a conversion that needs several more bytes for each pixel."""


def row_strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row after the last of each strip of an image of this size."""
    rows = max(1, STRIP // width)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def integer_to_byte(pixels: NDArray[np.generic], name: str, white: int = 65535) -> Bytes:
    """Scale integer grey to 8 bits, rounding to nearest.

    Args:
        pixels: Grey values of shape (H, W), of any integer dtype. Pillow keeps 16 bits in 16 or 32.
        name: Name of the image in error messages.
        white: Value that becomes 255.

    Returns:
        Grey values, uint8 of shape (H, W).

    Raises:
        ImageError: If a pixel is below 0 or above `white`.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > white:
        raise ImageError(
            f"{name}: integer pixels must be from 0 to {white}, not from {low} to {high}; scale them to 8 bits first"
        )
    result = np.empty(pixels.shape, np.uint8)
    for top, bottom in row_strips(pixels.shape[1], pixels.shape[0]):
        result[top:bottom] = (pixels[top:bottom].astype(np.uint32) * 510 + white) // (2 * white)
    return result


def float_to_byte(pixels: NDArray[np.generic], name: str) -> Bytes:
    """Scale floating-point grey from 0..1 to 8 bits, or from 0..255 if a pixel is above 1.

    Args:
        pixels: Grey values of shape (H, W), of any floating-point dtype.
        name: Name of the image in error messages.

    Returns:
        Grey values, uint8 of shape (H, W).

    Raises:
        ImageError: If a pixel is below 0, above 255 or not finite.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):  # NaN fails as well
        raise ImageError(
            f"{name}: floating-point pixels must be from 0 to 1 or from 0 to 255, not from {low:g} to {high:g}"
        )
    result = np.empty(pixels.shape, np.uint8)
    for top, bottom in row_strips(pixels.shape[1], pixels.shape[0]):
        result[top:bottom] = np.rint(pixels[top:bottom].astype(np.float64) * (255 if high <= 1 else 1))
    return result
