"""Tests of TIFF decoding: every layout is decoded to the pixels that its samples define, or refused by its kind.

The expected pixels are computed from the samples by the definitions of TIFF 6.0, without an image library.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, __version__, features

from seewhy import ImageError
from seewhy.images.decoding import decode_bytes, decode_file, decode_image
from support.files.tiff_files import (
    BLACK_IS_ZERO,
    CIELAB,
    CMYK,
    DEFLATE,
    FLOAT,
    LZW,
    MASK,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    SIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    tiff,
    tiff_pages,
)

HEIGHT, WIDTH = 19, 37
# Older versions of Pillow cannot open grey with premultiplied alpha or an unused sample, and uncompressed YCbCr.
PILLOW_13 = int(__version__.split(".")[0]) >= 13
LAYOUTS: list[dict[str, int]] = [{}, {"rows": 5}, {"tile": 16}]
NAMES = {
    WHITE_IS_ZERO: "WhiteIsZero",
    BLACK_IS_ZERO: "BlackIsZero",
    RGB: "RGB",
    PALETTE: "palette",
    MASK: "transparency mask",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    CIELAB: "CIELab",
}
COUNTS = {RGB: 3, CMYK: 4, YCBCR: 3, CIELAB: 3}
# Bits of unsigned samples that are decoded, little-endian and big-endian.
DECODED = {
    WHITE_IS_ZERO: ({1, 2, 4, 8, 16}, {1, 2, 4, 8}),
    BLACK_IS_ZERO: ({1, 2, 4, 8, 12, 16}, {1, 2, 4, 8, 16}),
    RGB: ({8, 16}, {8, 16}),
    PALETTE: ({1, 2, 4, 8}, {1, 2, 4, 8}),
    CMYK: ({8, 16}, {8, 16}),
    YCBCR: ({8}, {8}),
}


def samples(bits: int, count: int = 1, seed: int = 0) -> np.ndarray:
    """Return random unsigned samples of shape (HEIGHT, WIDTH, count), with the smallest and the largest value."""
    values = np.random.default_rng(seed).integers(0, 1 << bits, (HEIGHT, WIDTH, count))
    values[0, 0], values[0, 1], values[0, 2] = 0, (1 << bits) - 1, (1 << bits) // 3
    return values


def ramp(shape: Sequence[int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Return floating-point samples from 0 to 1."""
    return np.linspace(0, 1, int(np.prod(shape))).reshape(shape).astype(np.float32)


def expected(photometric: int, unit: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """Return the RGB pixels, from 0 to 255, of samples or of colours of a palette from 0 to 1."""
    if colours is not None:
        return colours * 255
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        grey = unit[..., :1] if photometric == BLACK_IS_ZERO else 1 - unit[..., :1]
        return np.repeat(grey, 3, axis=2) * 255
    if photometric == CMYK:
        return (1 - unit[..., :3]) * (1 - unit[..., 3:4]) * 255
    if photometric == YCBCR:
        luma, blue, red = unit[..., 0] * 255, unit[..., 1] * 255 - 128, unit[..., 2] * 255 - 128
        rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
        return np.stack(rgb, axis=-1).clip(0, 255)
    return unit[..., :3] * 255


def check(content: bytes, pixels: np.ndarray, tolerance: float = 0.51) -> None:
    """Compare the results of all ways to decode a file; a tolerance of 0.51 allows for rounding to nearest."""
    for decoded in (
        decode_bytes(content, "RGB", "x").image,
        decode_image(Image.open(io.BytesIO(content)), "RGB", "x"),
    ):
        assert np.abs(np.asarray(decoded) - pixels).max() <= tolerance


def refused(content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"^x: {words}") as raised:
        decode_bytes(content, "RGB", "x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16, 24, 32])
@pytest.mark.parametrize("photometric", NAMES, ids=NAMES.get)
def test_unsigned_samples(photometric: int, bits: int, compression: int) -> None:
    if photometric == CIELAB and bits == 8:
        return  # see test_cielab
    values = samples(bits, COUNTS.get(photometric, 1))
    palette = np.random.default_rng(1).integers(0, 65536, (1 << min(bits, 8), 3)) if photometric == PALETTE else None
    for order, layout in product("<>", LAYOUTS):
        options: dict[str, Any] = {**layout, "order": order, "compression": compression, "colormap": palette}
        options["tags"] = {530: (1, 1)} if photometric == YCBCR else {}
        content = tiff(values, photometric, bits, **options)
        opened = PILLOW_13 or photometric != YCBCR or compression != NONE
        if opened and bits in DECODED.get(photometric, ((), ()))[order == ">"]:
            colours = None if palette is None else palette[values[..., 0]] / 65535
            unit = values / ((1 << bits) - 1)
            # Pillow takes the high byte of 16-bit colours, and computes CMYK and YCbCr in integers.
            tolerance = {RGB: 1, PALETTE: 1, CMYK: 2, YCBCR: 2}.get(photometric, 0.51)
            check(content, expected(photometric, unit, colours), tolerance)
        else:
            refused(content, f"{bits}-bit {NAMES[photometric]} TIFF")


@pytest.mark.parametrize("compression", [NONE, DEFLATE])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_lowest_bit_first(photometric: int, bits: int, compression: int) -> None:
    values = samples(bits)
    content = tiff(values, photometric, bits, fill_order=2, compression=compression)
    raw = compression == NONE
    if bits == 12 or (photometric == WHITE_IS_ZERO and (bits == 16 or (bits == 8 and raw))):
        refused(content, f".*{bits}-bit {NAMES[photometric]} TIFF .*lowest bit first")
    else:
        check(content, expected(photometric, values / ((1 << bits) - 1)))


@pytest.mark.skipif(not features.check("libtiff"), reason="needs libtiff")
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_fax(photometric: int, fill_order: int) -> None:
    """Group 4 compression: Pillow encodes the bits, and the tags define their meaning."""
    values = samples(1)[..., 0]
    file = io.BytesIO()
    Image.fromarray(values.astype(bool)).save(file, "TIFF", compression="group4", tiffinfo={262: 1})
    with Image.open(file) as written:
        offset, length = written.tag_v2[273][0], written.tag_v2[279][0]  # type: ignore[attr-defined]
        stored = written.tag_v2[262]  # type: ignore[attr-defined]
    data = np.frombuffer(file.getvalue()[offset : offset + length], np.uint8)[None]
    tags = {256: WIDTH, 257: HEIGHT, 258: 1, 278: HEIGHT}
    content = tiff(data, photometric, 8, fill_order=fill_order, tags={**tags, 259: 4})
    inverted = photometric != stored
    check(content, expected(BLACK_IS_ZERO, (1 - values if inverted else values)[..., None]))


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("compression", [NONE, DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("least", [None, 0])
def test_signed_integers_are_refused(bits: int, compression: int, order: str, least: int | None) -> None:
    """Files without negative values are refused too, because white is not defined."""
    values = np.array([[-1 if least is None else 0, 3, 100]])
    for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        content = tiff(values, photometric, bits, kind=SIGNED, compression=compression, order=order)
        refused(content, f"{bits}-bit {NAMES[photometric]} TIFF .*signed integers")


@pytest.mark.parametrize("top", [255, 65535, 2**31, 2**32 - 1])
def test_integers_of_32_bits_are_refused(top: int) -> None:
    for order, compression in product("<>", (NONE, DEFLATE)):
        content = tiff(np.array([[0, top]]), BLACK_IS_ZERO, 32, order=order, compression=compression)
        refused(content, "32-bit BlackIsZero TIFF")


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_floating_point(photometric: int, predictor: int, compression: int) -> None:
    values = ramp()
    for order, scale, layout in product("<>", (1, 255), LAYOUTS):
        options: dict[str, Any] = {"order": order, "compression": compression, **layout}
        options["predictor"] = 1 if compression == NONE else predictor
        content = tiff(values * np.float32(scale), photometric, 32, kind=FLOAT, **options)
        if order == ">" and compression != NONE:
            refused(content, f"32-bit {NAMES[photometric]} TIFF .floating point, big-endian, ")
        else:
            check(content, expected(photometric, values[..., None].astype(np.float64)), 0.5001)
    for bits in (16, 64):
        content = tiff(values, photometric, bits, kind=FLOAT, compression=compression)
        refused(content, f"{bits}-bit {NAMES[photometric]} TIFF .floating point")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [LZW, DEFLATE])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB])
def test_horizontal_predictor(photometric: int, compression: int, bits: int) -> None:
    values = samples(bits, COUNTS.get(photometric, 1))
    for layout in LAYOUTS:
        content = tiff(values, photometric, bits, predictor=2, compression=compression, **layout)
        check(content, expected(photometric, values / ((1 << bits) - 1)), 1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB])
def test_extra_sample(photometric: int, extra: int, bits: int) -> None:
    """An extra sample of kind 0 has no meaning, 1 is alpha with premultiplied colours, 2 is plain alpha."""
    top = (1 << bits) - 1
    values = samples(bits, COUNTS.get(photometric, 1) + 1)
    if extra == 1:
        values = np.minimum(values, values[..., -1:])
    colour, alpha = expected(photometric, values / top), values[..., -1:] / top
    laid = {0: colour, 1: colour + 255 * (1 - alpha), 2: colour * alpha + 255 * (1 - alpha)}[extra]
    for order, compression, planar in product("<>", (NONE, DEFLATE), (False, True)):
        content = tiff(values, photometric, bits, extra=[extra], order=order, compression=compression, planar=planar)
        try:
            check(content, laid, 1 if extra == 0 else 4)  # Pillow blends in integers
        except ImageError as error:
            assert f"{bits}-bit {NAMES[photometric]} TIFF" in str(error)
            unopened = bits == 16 or (extra != 2 and not PILLOW_13)
            assert planar or photometric == WHITE_IS_ZERO or (photometric == BLACK_IS_ZERO and unopened)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK])
def test_samples_in_separate_planes(photometric: int, bits: int) -> None:
    values = samples(bits, COUNTS.get(photometric, 1))
    decoded = 0
    for compression, fill_order, layout in product((NONE, DEFLATE), (1, 2), LAYOUTS):
        options: dict[str, Any] = {"compression": compression, "fill_order": fill_order, **layout}
        content = tiff(values, photometric, bits, planar=True, **options)
        try:
            check(content, expected(photometric, values / ((1 << bits) - 1)), 2 if photometric == CMYK else 1)
            decoded += 1
        except ImageError as error:
            assert f"{bits}-bit {NAMES[photometric]} TIFF" in str(error)
    assert decoded >= (3 if bits in DECODED[photometric][0] else 0)


def test_cielab() -> None:
    """Greys have the lightness that defines L*; a* and b* are signed."""
    lightness = np.array([[0, 64, 128, 200, 255]])
    lab = np.stack([lightness, 0 * lightness, 0 * lightness], axis=-1)
    linear = np.where(lightness > 8 * 2.55, ((lightness / 2.55 + 16) / 116) ** 3, lightness / 2.55 / (24389 / 27))
    grey = 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    coloured = np.array([[[128, 60, 256 - 60]]])  # violet: much red and blue, little green
    for compression in (NONE, DEFLATE):
        check(tiff(lab, CIELAB, 8, compression=compression), np.repeat(grey[..., None], 3, axis=2), 2)
        for mode in ("RGB", "L"):
            found = np.asarray(decode_bytes(tiff(lab, CIELAB, 8, compression=compression), mode, "x").image)
            assert np.abs(found.reshape(5, -1)[:, 0] - grey[0]).max() <= 2
        red, green, blue = np.asarray(decode_bytes(tiff(coloured, CIELAB, 8), "RGB", "x").image)[0, 0].astype(int)
        assert min(red, blue) > green + 60
        refused(tiff(lab, CIELAB, 8, planar=True, compression=compression), "8-bit CIELab TIFF .*in separate planes")


def test_palette_of_bytes() -> None:
    """Some writers store 8-bit entries in place of 16-bit ones, and libtiff reads them as 8-bit entries."""
    values = samples(4)
    palette = np.random.default_rng(2).integers(0, 256, (16, 3))
    for compression in (NONE, DEFLATE):
        content = tiff(values, PALETTE, 4, colormap=palette, compression=compression)
        check(content, palette[values[..., 0]], 0)
    black = tiff(values, PALETTE, 4, colormap=np.zeros((16, 3), int))
    check(black, np.zeros((HEIGHT, WIDTH, 3)), 0)
    values = samples(8, 2)
    values[..., 1] = 255
    palette = np.random.default_rng(2).integers(0, 256, (256, 3))
    content = tiff(values, PALETTE, 8, colormap=palette, extra=[2])
    check(content, palette[values[..., 0]], 0)


@pytest.mark.skipif(not PILLOW_13, reason="older versions of Pillow read no uncompressed YCbCr")
def test_colour_tags_that_pillow_ignores() -> None:
    values = samples(8, 3)
    refused(tiff(values, YCBCR, 8), "8-bit YCbCr TIFF .* unequal resolution")
    other = {529: (4096, 10000, 4096, 10000, 1808, 10000)}
    narrow = {532: (16, 235, 128, 240, 128, 240)}
    refused(tiff(values, YCBCR, 8, tags={530: (1, 1), **narrow}), "8-bit YCbCr TIFF .* do not span 0 to 255")
    refused(tiff(values, YCBCR, 8, tags={530: (1, 1), 529: other[529][:3]}), "8-bit YCbCr TIFF .* CCIR 601")
    refused(tiff(samples(8, 4), CMYK, 8, tags={332: 2}), "8-bit CMYK TIFF .* inks are not CMYK")


def test_photometric_left_out() -> None:
    refused(tiff(samples(12), None, 12), "12-bit TIFF .no photometric interpretation. cannot be decoded")
    refused(tiff(samples(16), None, 16), "16-bit TIFF .no photometric interpretation.: .* whether 0 is black or white")


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff(order: str) -> None:
    for photometric, bits in ((WHITE_IS_ZERO, 16), (WHITE_IS_ZERO, 1), (BLACK_IS_ZERO, 12), (BLACK_IS_ZERO, 16)):
        values = samples(bits)
        content = tiff(values, photometric, bits, order=order, big=True, rows=4)
        if order == ">":
            refused(content, "big-endian BigTIFF cannot be decoded")
        else:
            check(content, expected(photometric, values / ((1 << bits) - 1)))


def test_pages_have_tags_of_their_own(tmp_path: Path) -> None:
    """The depth and the meaning of 0 are read from the tags of the current page."""
    kinds = [(BLACK_IS_ZERO, 16), (WHITE_IS_ZERO, 16), (BLACK_IS_ZERO, 12), (WHITE_IS_ZERO, 8)]
    pages = [{"samples": samples(bits), "photometric": photometric, "bits": bits} for photometric, bits in kinds]
    for compression in (NONE, DEFLATE):
        path = tmp_path / "x.tif"
        path.write_bytes(tiff_pages([{**page, "compression": compression} for page in pages]))
        wanted = [expected(photometric, samples(bits) / ((1 << bits) - 1)) for photometric, bits in kinds]
        assert np.abs(np.asarray(decode_file(path, "RGB").image) - wanted[0]).max() <= 0.51
        with Image.open(path) as image:
            for page in (1, 3, 2, 0, 1):
                image.seek(page)
                assert np.abs(np.asarray(decode_image(image, "RGB", "x")) - wanted[page]).max() <= 0.51


def test_image_that_is_already_loaded() -> None:
    values = samples(16)
    image = Image.open(io.BytesIO(tiff(values, WHITE_IS_ZERO, 16, compression=DEFLATE)))
    image.load()
    before = np.asarray(image).copy()
    for _ in range(2):
        found = decode_image(image, "L", "x")
        assert np.array_equal(np.asarray(found), 255 - np.rint(values[..., 0] / 257))
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize("name", [None, "JPEG", "PNG", "JPEG2000"])
def test_the_format_may_have_another_name(name: str | None) -> None:
    """Programs set `format` before they save an image, and a subclass of a driver's class has another format."""
    values = samples(16)
    image = Image.open(io.BytesIO(tiff(values, WHITE_IS_ZERO, 16)))
    image.format = name
    found = decode_image(image, "L", "x")
    assert np.array_equal(np.asarray(found), 255 - np.rint(values[..., 0] / 257))


def test_name_in_errors_is_one_line() -> None:
    content = tiff(samples(8), 77, 8, tags={339: 9, 259: 4242})
    refused(content, re.escape("8-bit TIFF (photometric interpretation 77, sample format 9, compression 4242) cannot"))
