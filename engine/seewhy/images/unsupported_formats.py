"""Table of image formats that cannot be decoded, and what to do with such files.

Files with these extensions are listed like images, so that each becomes a failure with its remedy, and none is passed
over in silence.
"""

from __future__ import annotations

import os

_RAW = "camera raw files are not decoded, because each converter develops them differently; convert it to TIFF or PNG"
_VECTOR = "vector graphics have no pixels; render it to PNG"
_LAYERS = "it holds layers; export it as PNG or TIFF"
_OTHER = "this format is not supported; convert it to PNG or TIFF"

REMEDIES = {
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"), _RAW),
    **dict.fromkeys((".emf", ".eps", ".svg", ".svgz", ".wmf"), _VECTOR),
    **dict.fromkeys((".psb", ".psd", ".xcf"), _LAYERS),
    **dict.fromkeys((".exr", ".hdr", ".jxl", ".jxr"), _OTHER),
    **dict.fromkeys((".avif", ".avifs"), "this version of Pillow lacks AVIF; upgrade Pillow to 11.3 or newer"),
    **dict.fromkeys((".j2k", ".jp2", ".jpx", ".webp"), "this Pillow lacks its decoder; install the wheel of Pillow"),
}
"""Remedy for a file, by its extension in lower case. Entries of formats that Pillow supports have no effect."""


def extension(name: str) -> str:
    """Return the extension of a file name, in lower case with the dot."""
    return os.path.splitext(name)[1].lower()
