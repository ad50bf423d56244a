"""Decode HEIF files (HEIC), with pi-heif. It only decodes, so it needs no GPL code as encoders of HEVC do."""

from __future__ import annotations

from typing import IO

from PIL import Image

from seewhy._shared.extras import missing_extra

EXTENSIONS = (".heic", ".heif", ".hif")
# Brands of still images and image sequences coded with HEVC (ISO/IEC 23008-12, annexes B and E).
_BRANDS = (b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx")
_ANY_CODEC = (b"mif1", b"mif2", b"msf1")


def is_heif(header: bytes) -> bool:
    """Return whether a file is a HEIF image coded with HEVC, or with a codec that its first brand leaves open.

    Args:
        header: First bytes of the file.

    Returns:
        True for HEIC and general HEIF files, False for AVIF and all others.
    """
    compatible = {header[start : start + 4] for start in range(16, min(_box_size(header), len(header)), 4)}
    if header[4:8] != b"ftyp" or compatible & {b"avif", b"avis"}:
        return False
    return header[8:12] in (*_BRANDS, *_ANY_CODEC)


def _box_size(header: bytes) -> int:
    return int.from_bytes(header[:4], "big")


def open_heif(file: IO[bytes], name: str) -> Image.Image:
    """Open the primary image of a HEIF file.

    The decoder applies rotations and mirroring that the file prescribes (`irot`, `imir`). The EXIF orientation only
    repeats them and is ignored, as the standard demands. Samples of 10 and 12 bits are scaled to 8 bits.

    Args:
        file: The open file.
        name: Name of the image in error messages.

    Returns:
        The image in mode RGB, RGBA or L. Its pixels are decoded when it is loaded.

    Raises:
        MissingExtraError: If pi-heif is not installed.
        Exception: If the file is damaged.
    """
    try:
        from pi_heif import HeifImageFile
    except ImportError:
        raise missing_extra(f"{name}: HEIC images need an extra", "heif") from None
    file.seek(0)
    image: Image.Image = HeifImageFile(file)
    return image
