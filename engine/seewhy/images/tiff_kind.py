"""Read the meaning of TIFF samples from the tags, and refuse kinds of TIFF that Pillow decodes wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image

from seewhy._shared.text import brief
from seewhy.errors import ImageError
from seewhy.images.pillow_drivers import opened_by

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 258, 259, 262, 266
_SAMPLES_PER_PIXEL, _PLANAR_CONFIGURATION, _COLORMAP, _INK_SET = 277, 284, 320, 332
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING, _REFERENCE_BLACK_WHITE = 529, 530, 532

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8
_SIGNED, _FLOAT = 2, 3

_PHOTOMETRIC_NAMES = {
    _WHITE_IS_ZERO: "WhiteIsZero",
    _BLACK_IS_ZERO: "BlackIsZero",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "transparency mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _CIELAB: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "CFA",
    32844: "LogL",
    32845: "LogLuv",
    34892: "LinearRaw",
}
_SAMPLE_FORMAT_NAMES = {_SIGNED: "signed integers", _FLOAT: "floating point", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class TiffKind:
    """Storage of the samples of one TIFF page, read from its tags. In a damaged file, the values may be anything."""

    photometric: Any
    """PhotometricInterpretation, or None if the tag is missing."""
    bits: tuple[Any, ...]
    """BitsPerSample of each sample."""
    sample_format: Any
    """SampleFormat of the first sample."""
    extra: tuple[Any, ...]
    """ExtraSamples."""
    compression: Any
    """Compression."""
    big_endian: bool
    """True if the file is big-endian."""
    planar: bool
    """True if each sample is stored in its own plane."""
    reversed: bool
    """True if the first pixel is in the lowest bit of a byte (FillOrder 2)."""

    @classmethod
    def from_tags(cls, tags: Mapping[int, Any], big_endian: bool) -> TiffKind:
        """Read the kind of a page from its tags.

        Args:
            tags: Values of the tags by their numbers.
            big_endian: True if the file is big-endian.

        Returns:
            The kind of the page.
        """
        bits = _values(tags.get(_BITS_PER_SAMPLE, 1))
        count = tags.get(_SAMPLES_PER_PIXEL, len(bits))
        return cls(
            photometric=tags.get(_PHOTOMETRIC),
            bits=bits * count if len(bits) == 1 and count in range(2, 10) else bits,
            sample_format=(*_values(tags.get(_SAMPLE_FORMAT, 1)), 1)[0],
            extra=_values(tags.get(_EXTRA_SAMPLES, ())),
            compression=tags.get(_COMPRESSION, 1),
            big_endian=big_endian,
            planar=tags.get(_PLANAR_CONFIGURATION, 1) == 2,
            reversed=tags.get(_FILL_ORDER, 1) == 2,
        )

    @property
    def compressed(self) -> bool:
        """True if the samples are compressed. Then Pillow decodes them with libtiff."""
        return bool(self.compression != 1)

    @property
    def white_is_zero(self) -> bool:
        """True if 0 is white and the largest value is black."""
        return bool(self.photometric == _WHITE_IS_ZERO)

    @property
    def white(self) -> int:
        """Largest value of an integer sample."""
        return 4095 if self.bits[:1] == (12,) else 65535

    def __str__(self) -> str:
        """Return a name such as "12-bit WhiteIsZero TIFF (big-endian, packbits)"."""
        bits = "/".join(brief(each) for each in list(dict.fromkeys(self.bits))[:5])
        photometric = _PHOTOMETRIC_NAMES.get(self.photometric)
        details = []
        if self.photometric is None:
            details.append("no photometric interpretation")
        elif photometric is None:
            details.append(f"photometric interpretation {brief(self.photometric)}")
        if self.sample_format != 1:
            details.append(_named(_SAMPLE_FORMAT_NAMES, self.sample_format, "sample format"))
        if len(self.bits) != 1:
            details.append(f"{len(self.bits)} samples per pixel")
        if self.planar:
            details.append("in separate planes")
        if self.reversed:
            details.append("lowest bit first")
        if self.big_endian:
            details.append("big-endian")
        if self.compressed:
            from PIL.TiffImagePlugin import COMPRESSION_INFO  # imported late, see `opened_by`

            details.append(_named(COMPRESSION_INFO, self.compression, "compression"))
        kind = f"{bits}-bit {photometric} TIFF" if photometric else f"{bits}-bit TIFF"
        return f"{kind} ({', '.join(details)})" if details else kind


def _values(value: Any) -> tuple[Any, ...]:
    """Return the value of a tag as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def _named(names: Mapping[int, str], value: Any, tag: str) -> str:
    """Return the name of a tag's value, or the tag and the value if it has no name."""
    return names.get(value) or f"{tag} {brief(value)}"


def tiff_kind(image: Image.Image) -> TiffKind | None:
    """Return the kind of the current page of an image that was opened from a TIFF, or None for other images."""
    tiff = opened_by("Tiff", image)
    return None if tiff is None else TiffKind.from_tags(tiff.tag_v2, tiff.tag_v2.prefix == b"MM")


def unopened_tiff(file: IO[bytes]) -> str | None:
    """Describe a TIFF that Pillow cannot open.

    Args:
        file: The open file.

    Returns:
        Its kind, such as `big-endian BigTIFF`, or None if the file is not a TIFF.

    Raises:
        Exception: If the file is damaged; nearly any exception can occur.
    """
    from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2  # imported late, see `opened_by`

    file.seek(0)
    header = file.read(8)
    if not header.startswith(tuple(PREFIXES)):
        return None
    if header.startswith(b"MM\x00\x2b"):
        return "big-endian BigTIFF"
    if header[2:3] == b"\x2b":  # BigTIFF
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    return str(TiffKind.from_tags(tags, header.startswith(b"MM")))


def refuse_misread_tiff(image: Image.Image, name: str) -> None:
    """Refuse a TIFF whose samples have no defined range, or that Pillow decodes wrongly.

    Args:
        image: Any image.
        name: Name of the image in error messages.

    Raises:
        ImageError: If the image is such a TIFF. The message gives the kind and the reason.
    """
    tiff = opened_by("Tiff", image)
    if tiff is None:
        return
    kind = TiffKind.from_tags(tiff.tag_v2, tiff.tag_v2.prefix == b"MM")
    reason = _integers(kind) or _layout(kind) or _colour(kind, tiff.tag_v2, tiff.mode)
    if reason is not None:
        raise ImageError(f"{name}: {kind}: {reason}")


_CONVERT = "convert it to 8 or 16 bits of unsigned RGB or BlackIsZero"


def _integers(kind: TiffKind) -> str | None:
    """Return why it is unknown which values are black and white, or None if it is known."""
    if kind.sample_format == _SIGNED:
        return "signed integers have no defined black and white; scale them to 8 bits first"
    if kind.sample_format != _FLOAT and 32 in kind.bits:
        return "32-bit integers rarely use their whole range, so white is unknown; scale them to 8 bits first"
    if kind.photometric is None and kind.bits[0] > 8:
        return f"the file does not say whether 0 is black or white; {_CONVERT}"
    return None


def _layout(kind: TiffKind) -> str | None:
    """Return why Pillow decodes the layout of the samples wrongly, or None if it decodes it correctly."""
    message = f"this layout would be decoded wrongly; {_CONVERT}, with the samples of a pixel together"
    if kind.sample_format == _FLOAT and kind.big_endian and kind.compressed:
        return f"this byte order would be decoded wrongly; {_CONVERT}, or store it little-endian"
    if not kind.planar:
        return None
    if kind.compressed:
        alpha = kind.photometric in (_BLACK_IS_ZERO, _PALETTE) and any(kind.extra)
        return message if alpha or kind.photometric == _CIELAB else None
    # Pillow uses one letter of its raw mode for each plane and ignores the rest: inversion, bit order and depth.
    bilevel = kind.bits == (1,) and kind.photometric == _BLACK_IS_ZERO
    bytewise = set(kind.bits) == {8} and kind.photometric in (_BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK)
    return None if (bilevel or bytewise) and not kind.reversed else message


def _colour(kind: TiffKind, tags: Mapping[int, Any], mode: str) -> str | None:
    """Return why Pillow decodes the colours wrongly, or None if it decodes them correctly."""
    if kind.photometric == _CMYK and tags.get(_INK_SET, 1) != 1:
        return "its inks are not CMYK; convert it to RGB"
    if kind.photometric != _YCBCR or kind.compressed:
        return None
    if mode != "YCbCr":
        return f"this version of Pillow decodes uncompressed YCbCr as RGB; {_CONVERT}"
    if tags.get(_YCBCR_SUBSAMPLING, (2, 2)) != (1, 1):
        return f"uncompressed samples of unequal resolution would be decoded wrongly; {_CONVERT}"
    coefficients = tags.get(_YCBCR_COEFFICIENTS)
    if coefficients is not None and not np.allclose(np.array(coefficients, float), (0.299, 0.587, 0.114), atol=1e-3):
        return f"its YCbCr coefficients are not those of CCIR 601; {_CONVERT}"
    span = tags.get(_REFERENCE_BLACK_WHITE)
    if span is not None and not np.allclose(np.array(span, float), (0, 255, 128, 255, 128, 255), atol=0.5):
        return f"its YCbCr values do not span 0 to 255; {_CONVERT}"
    return None


def with_byte_palette(image: Image.Image) -> Image.Image:
    """Fix the palette of a TIFF whose writer stored 8-bit entries in place of 16-bit ones.

    Pillow reads such a palette as black. As in libtiff, it is recognised by having no entry above 255.

    Args:
        image: Any image.

    Returns:
        A copy with the correct palette, or the image itself if its palette is correct.
    """
    tiff = opened_by("Tiff", image)
    if tiff is None or image.mode not in ("P", "PA") or any(image.getpalette() or ()):
        return image
    entries = np.array(tiff.tag_v2[_COLORMAP])
    if not entries.any() or entries.max() > 255:
        return image
    copy = image.copy()
    copy.putpalette(entries.reshape(3, -1).T.astype(np.uint8).tobytes())
    return copy
