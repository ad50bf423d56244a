"""Find the depth of 16-bit grey PNG files whose samples were not scaled to 16 bits."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.images.pillow_drivers import opened_by

_SIGNATURE_SIZE = 8


def significant_bits(image: Image.Image) -> int | None:
    """Return the depth of the original samples of a 16-bit grey PNG (PNG specification, 11.3.2.7 sBIT).

    Args:
        image: Any image. If it is already loaded, its file is no longer known.

    Returns:
        Number of bits, from 9 to 15, or None if the image is of another kind or does not state another depth.
    """
    png = opened_by("Png", image)
    if png is None or not png.mode.startswith("I") or png.fp is None or not png.tile:
        return None
    before = png.fp.tell()
    try:
        png.fp.seek(_SIGNATURE_SIZE)
        while True:
            length, kind = struct.unpack(">I4s", png.fp.read(8))
            if kind == b"sBIT" and length == 1:
                bits = int(png.fp.read(1)[0])
                return bits if 8 < bits < 16 else None
            if kind in (b"IDAT", b"IEND"):
                return None
            png.fp.seek(length + 4, 1)
    finally:
        png.fp.seek(before)


def white_of(pixels: NDArray[np.generic], bits: int | None) -> int:
    """Return the sample that is white in a 16-bit grey PNG.

    The specification demands that samples of fewer bits are scaled to 16, in one of three ways ("Sample depth
    scaling"): in proportion, by repeating the high bits in the low ones, or by zeros in the low bits. Some programs
    store the samples as they are. Then they all fit into the stated number of bits, and follow none of these patterns.

    Args:
        pixels: Samples, integers of shape (H, W).
        bits: Depth of the original samples, from `significant_bits`.

    Returns:
        The largest sample of that depth if the samples were not scaled, otherwise 65535.
    """
    if bits is None or int(pixels.max()) >= 1 << bits:
        return 65535
    present = np.zeros(1 << bits, bool)
    present[pixels] = True
    samples, top = np.flatnonzero(present), (1 << bits) - 1
    high = samples >> (16 - bits)
    zeros = high << (16 - bits)
    repeated = zeros | (high >> (2 * bits - 16))
    original = (2 * samples * top + 65535) // (2 * 65535)
    linear = (2 * original * 65535 + top) // (2 * top)
    return 65535 if any((samples == scaled).all() for scaled in (zeros, repeated, linear)) else top
