"""Find the depth of 16-bit grey PNG files whose samples were not scaled to 16 bits."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

_SIGNATURE_SIZE = 8


def significant_bits(image: Image.Image) -> int | None:
    """Return the depth of the original samples of a 16-bit grey PNG (PNG specification, 11.3.2.7 sBIT).

    Args:
        image: Any image. If it is already loaded, its file is no longer known.

    Returns:
        Number of bits, from 9 to 15, or None if the image is of another kind or does not state another depth.
    """
    if not isinstance(image, PngImageFile) or not image.mode.startswith("I") or image.fp is None or not image.tile:
        return None
    before = image.fp.tell()
    try:
        image.fp.seek(_SIGNATURE_SIZE)
        while True:
            length, kind = struct.unpack(">I4s", image.fp.read(8))
            if kind == b"sBIT" and length == 1:
                bits = int(image.fp.read(1)[0])
                return bits if 8 < bits < 16 else None
            if kind in (b"IDAT", b"IEND"):
                return None
            image.fp.seek(length + 4, 1)
    finally:
        image.fp.seek(before)


def white_of(pixels: NDArray[np.generic], bits: int | None) -> int:
    """Return the sample that is white in a 16-bit grey PNG.

    The specification demands that samples of fewer bits are scaled to 16, which leaves a pattern: the low bits repeat
    the high ones, or are zero. Some programs store the samples as they are. Then they all fit into the stated number of
    bits and lack the pattern.

    Args:
        pixels: Samples, integers of shape (H, W).
        bits: Depth of the original samples, from `significant_bits`.

    Returns:
        The largest sample of that depth if the samples were not scaled, otherwise 65535.
    """
    if bits is None or int(pixels.max()) >= 1 << bits:
        return 65535
    samples = pixels.astype(np.int64)
    high = samples >> (16 - bits)
    zeros, repeated = high << (16 - bits), (high << (16 - bits)) | (high >> (2 * bits - 16))
    scaled = bool((samples == zeros).all() or (samples == repeated).all())
    return 65535 if scaled else (1 << bits) - 1
