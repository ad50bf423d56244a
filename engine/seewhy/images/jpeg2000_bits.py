"""Read the bit depth of JPEG 2000 components, and refuse depths that Pillow decodes wrongly."""

from __future__ import annotations

import struct
from typing import IO

from PIL import Image

from seewhy.errors import ImageError
from seewhy.images.pillow_drivers import opened_by

_CODESTREAM = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ


def refuse_misread_jpeg2000(image: Image.Image, name: str) -> None:
    """Refuse a JPEG 2000 image whose bit depth Pillow decodes wrongly.

    Pillow scales samples to 8 bits by shifting. For fewer than 8 bits, white does not become 255. For more than 8 bits,
    Pillow rounds without clipping, so white becomes black. It decodes grey of 9 to 16 bits correctly, to 16 bits.

    Args:
        image: Any image. If it is already loaded, its depth is no longer known, and it is accepted.
        name: Name of the image in error messages.

    Raises:
        ImageError: If the image is decoded wrongly.
    """
    opened = opened_by("Jpeg2K", image)
    if opened is None or not opened.tile or opened.fp is None:
        return
    bits = component_bits(opened.fp)
    if not all(9 <= each <= 16 if image.mode == "I;16" else each == 8 for each in bits):
        depths = "/".join(str(each) for each in dict.fromkeys(bits))
        raise ImageError(
            f"{name}: a {depths}-bit JPEG 2000 image with {len(bits)} components ({image.mode}) would be decoded "
            f"wrongly; convert it to 8 bits, or grey to 16"
        )


def component_bits(file: IO[bytes]) -> list[int]:
    """Return the bits of each component of a JPEG 2000 file or codestream (ITU-T T.800, A.5.1 and I.4).

    Args:
        file: The open file. Its position is restored.

    Returns:
        Number of bits of each component.

    Raises:
        struct.error: If the file ends too early.
        ValueError: If the file holds no codestream.
    """
    before = file.tell()
    try:
        file.seek(0)
        if file.read(4) != _CODESTREAM:
            file.seek(0)
            _enter_codestream(file)
        file.seek(36, 1)  # skip the fields from Lsiz to YTOsiz
        (count,) = struct.unpack(">H", file.read(2))
        return [(each & 0x7F) + 1 for each in struct.unpack(f"{3 * count}B", file.read(3 * count))[::3]]
    finally:
        file.seek(before)


def _enter_codestream(file: IO[bytes]) -> None:
    """Move to the position after the markers SOC and SIZ of the codestream in a JP2 file."""
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        start = 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            start = 16
        if kind == b"jp2c":
            break
        if length < start:
            raise ValueError("the JPEG 2000 file has no codestream")
        file.seek(length - start, 1)
    if file.read(4) != _CODESTREAM:
        raise ValueError("the JPEG 2000 codestream has no SIZ marker")
