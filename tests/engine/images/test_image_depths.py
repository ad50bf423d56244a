"""Tests of `seewhy.images.decoding` with pixels other than 8-bit RGB, in PIL images and all formats except TIFF."""

from __future__ import annotations

import io
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from seewhy import ImageError
from seewhy.images.decoding import decode_bytes, decode_image
from seewhy.images.jpeg2000_bits import component_bits
from support.files.image_files import chunk, png


def grey(content: bytes) -> list[list[int]]:
    return np.asarray(decode_bytes(content, "L", "x").image).tolist()


def both_ways(content: bytes, mode: str) -> list[list[int]]:
    """Return the pixels of a file, after checking that a PIL image that is not loaded yet gives the same."""
    found = np.asarray(decode_bytes(content, mode, "x").image)
    assert np.array_equal(np.asarray(decode_image(Image.open(io.BytesIO(content)), mode, "x")), found)
    return found.tolist()


# PNG.


def transparent_png(samples: list[int], depth: int, colours: int, key: bytes) -> bytes:
    """Return a PNG with one row of pixels and a transparent colour in its tRNS chunk."""
    bits = "".join(f"{sample:0{depth}b}" for sample in samples)
    row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    content = png(len(samples) // (3 if colours == 2 else 1), 1, b"\0" + row, depth, colours)
    place = content.index(b"IDAT") - 4
    return content[:place] + chunk(b"tRNS", key) + content[place:]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_transparent_grey_of_few_bits(depth: int) -> None:
    """The transparent grey is stored in the units of the file, although pixels are scaled."""
    top = (1 << depth) - 1
    samples = list(range(top + 1))[:: max(1, top // 15)]
    for key in samples:
        content = transparent_png(samples, depth, 0, struct.pack(">H", key))
        wanted = [255 if sample == key else round(sample * 255 / top) for sample in samples]
        assert both_ways(content, "L") == [wanted]


@pytest.mark.parametrize("key", [0, 300, 301, 65535])
def test_transparent_grey_of_16_bits(key: int) -> None:
    samples = [0, 300, 301, 40000, 65535]
    content = transparent_png(samples, 16, 0, struct.pack(">H", key))
    wanted = [255 if sample == key else round(sample / 257) for sample in samples]
    assert both_ways(content, "L") == [wanted]
    assert both_ways(content, "RGB") == [[[each] * 3 for each in wanted]]


@pytest.mark.parametrize("key", [(65535, 65535, 65535), (0, 0, 0), (7, 8, 9), (300, 300, 300)])
def test_transparent_colour_of_16_bits_is_refused(key: tuple[int, int, int]) -> None:
    """Pillow keeps only the high byte of each channel, which is not enough to compare colours."""
    content = transparent_png([0, 0, 1, *key], 16, 2, struct.pack(">3H", *key))
    with pytest.raises(ImageError, match="x: 16-bit RGB with a transparent colour"):
        decode_bytes(content, "RGB", "x")
    with pytest.raises(ImageError, match="x: 16-bit RGB with a transparent colour"):
        decode_image(Image.open(io.BytesIO(content)), "RGB", "x")


def test_transparent_colour_of_8_bits() -> None:
    content = transparent_png([1, 2, 3, 4, 5, 6], 8, 2, struct.pack(">3H", 4, 5, 6))
    assert both_ways(content, "RGB") == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png(depth: int) -> None:
    top = (1 << depth) - 1
    samples = [0, top, top // 2, top // 3]
    rows = b"\0" + int("".join(f"{sample:0{depth}b}" for sample in samples).ljust(8, "0"), 2).to_bytes(
        max(1, depth // 2), "big"
    )
    assert both_ways(png(4, 1, rows, depth, 0), "L") == [[round(sample * 255 / top) for sample in samples]]


def deep_png(samples: np.ndarray, significant: int | None) -> bytes:
    """Return a 16-bit grey PNG, with a chunk sBIT if `significant` is given."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    content = png(samples.shape[1], samples.shape[0], rows, 16, 0)
    place = content.index(b"IDAT") - 4
    return content[:place] + (b"" if significant is None else chunk(b"sBIT", bytes([significant]))) + content[place:]


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_16_bit_png_that_states_fewer_bits(bits: int) -> None:
    """Samples may be scaled to 16 bits, as the specification demands, by repeated bits or by zeros, or not at all."""
    top = (1 << bits) - 1
    for samples in ([[0, 1, top // 3, top // 2, top - 1, top]], [[0, 1, 2, 3]], [[0, 0]]):
        original = np.array(samples)
        repeated = (original << (16 - bits)) | (original >> (2 * bits - 16))
        found = np.asarray(both_ways(deep_png(repeated, bits), "L"))
        assert np.abs(found - original / top * 255).max() <= 0.51
        zeros = original << (16 - bits)
        assert both_ways(deep_png(zeros, bits), "L") == np.rint(zeros / 257).tolist()
        assert both_ways(deep_png(original, bits), "L") == np.rint(original / top * 255).tolist()
        assert both_ways(deep_png(original, None), "L") == np.rint(original / 257).tolist()
        assert both_ways(deep_png(original, 16), "L") == np.rint(original / 257).tolist()


def test_a_dark_16_bit_png_that_was_scaled_stays_dark() -> None:
    """All samples fit into 12 bits, but their low bits repeat the high ones."""
    dark = np.array([[0x0000, 0x0010, 0x0420, 0x0AB0]])
    assert both_ways(deep_png(dark, 12), "L") == np.rint(dark / 257).tolist()


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_a_dark_16_bit_png_that_was_scaled_in_proportion_stays_dark(bits: int) -> None:
    """The specification's formula, floor(value * 65535 / top + 1/2); all samples of 9 to 15 bits that stay below."""
    top = (1 << bits) - 1
    scaled = [math.floor(Fraction(value * 65535, top) + Fraction(1, 2)) for value in range(top + 1)]
    dark = np.array([[sample for sample in scaled if sample <= top]])
    assert both_ways(deep_png(dark, bits), "L") == np.rint(dark / 257).tolist()


# Netpbm, SGI.


@pytest.mark.parametrize("top", [1, 15, 100, 255, 256, 1023, 4095, 16383, 65535])
def test_netpbm_is_scaled_by_its_greatest_value(top: int) -> None:
    samples = [0, top, top // 2, top // 3]
    wanted = [[round(sample * 255 / top) for sample in samples]]
    kind = ">4B" if top < 256 else ">4H"
    assert grey(b"P5 4 1 %d\n" % top + struct.pack(kind, *samples)) == wanted
    assert grey(b"P2 4 1 %d\n" % top + " ".join(map(str, samples)).encode()) == wanted
    colours = struct.pack(kind.replace("4", "12"), *(each for sample in samples for each in [sample] * 3))
    assert np.abs(np.subtract(grey(b"P6 4 1 %d\n" % top + colours), wanted)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_portable_float_map(order: str) -> None:
    """The rows go from the bottom to the top; a negative scale means little-endian."""
    for scale in (1, 255):
        data = (np.array([[0.25, 0.5], [0, 1]]) * scale).astype(f"{order}f4").tobytes()
        assert grey(b"Pf 2 2 %s1.0\n" % (b"-" if order == "<" else b"") + data) == [[0, 255], [64, 128]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_sgi_of_16_bits(channels: int, packed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (3, 5, channels))
    head = struct.pack(">HBBHHHHII", 474, packed, 2, 3 if channels > 1 else 2, 5, 3, channels, 0, 65535)
    rows = [values[y, :, c].astype(">u2").tobytes() for c in range(channels) for y in (2, 1, 0)]
    if packed:
        rows = [struct.pack(">H", 0x80 | 5) + row + bytes(2) for row in rows]
        starts = [512 + 8 * len(rows) + len(rows[0]) * i for i in range(len(rows))]
        rows = [struct.pack(f">{len(rows)}I", *starts), struct.pack(f">{len(rows)}I", *map(len, rows)), *rows]
    found = np.asarray(decode_bytes(head.ljust(512, b"\0") + b"".join(rows), "RGB", "x").image)
    assert np.abs(found - values / 257).max() <= 1  # Pillow keeps the high byte


# JPEG 2000. Its depth is stored after the marker SIZ. To make a codestream of another depth, the tests change this
# number: a sample keeps its distance from the middle of the range.


def jpeg2000(pixels: np.ndarray, bits: int, signed: bool = False, boxed: bool = False) -> bytes:
    stored = 8 * pixels.dtype.itemsize
    shift = (1 << stored - 1) - (1 << bits - 1)
    file = io.BytesIO()
    Image.fromarray((pixels + shift).astype(pixels.dtype)).save(file, "JPEG2000", no_jp2=not boxed)
    content = bytearray(file.getvalue())
    start = content.index(b"\xff\x4f\xff\x51") + 42
    for component in range(pixels.shape[2] if pixels.ndim == 3 else 1):
        assert content[start + 3 * component] == stored - 1
        content[start + 3 * component] = bits - 1 | signed << 7
    return bytes(content)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="needs OpenJPEG")
@pytest.mark.parametrize("boxed", [False, True])
class TestJpeg2000:
    @pytest.mark.parametrize("bits", [9, 10, 12, 16])
    @pytest.mark.parametrize("signed", [False, True])
    def test_deep_grey(self, bits: int, signed: bool, boxed: bool) -> None:
        """Signed samples are brightness too: the smallest value is black."""
        top = (1 << bits) - 1
        samples = np.array([[0, top, top // 2, top // 3]])
        content = jpeg2000(samples.astype(np.uint16), bits, signed, boxed)
        assert component_bits(io.BytesIO(content)) == [bits]
        assert np.abs(np.subtract(both_ways(content, "L"), samples * 255 / top)).max() <= 1

    @pytest.mark.parametrize("bits", [1, 4, 7])
    def test_shallow_grey_is_refused(self, bits: int, boxed: bool) -> None:
        content = jpeg2000(np.array([[0, (1 << bits) - 1]], np.uint8), bits, boxed=boxed)
        with pytest.raises(ImageError, match=f"x: a {bits}-bit JPEG 2000 image with 1 components"):
            decode_bytes(content, "L", "x")

    @pytest.mark.parametrize("bits", [5, 9, 12, 16])
    def test_colour_of_other_depths_is_refused(self, bits: int, boxed: bool) -> None:
        """Pillow would turn white into black, because it rounds up without clipping."""
        content = jpeg2000(np.zeros((8, 8, 3), np.uint8), 8, boxed=boxed)
        edited = bytearray(content)
        start = content.index(b"\xff\x4f\xff\x51") + 42
        edited[start], edited[start + 3], edited[start + 6] = [bits - 1] * 3
        assert component_bits(io.BytesIO(edited)) == [bits] * 3
        for decode in (decode_bytes, lambda data, *_: decode_image(Image.open(io.BytesIO(data)), "RGB", "x")):
            with pytest.raises(ImageError, match=f"x: a {bits}-bit JPEG 2000 image with 3 components"):
                decode(bytes(edited), "RGB", "x")

    def test_eight_bits(self, boxed: bool) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        assert both_ways(jpeg2000(pixels, 8, boxed=boxed), "RGB") == pixels.tolist()

    def test_headers_that_end_too_early(self, boxed: bool, tmp_path: Path) -> None:
        content = jpeg2000(np.zeros((8, 8), np.uint8), 8, boxed=boxed)
        for length in range(12, content.index(b"\xff\x4f\xff\x51") + 45):
            with pytest.raises(ImageError, match="x: "):
                decode_bytes(content[:length], "RGB", "x")


# PIL images.


def test_grey_with_alpha_multiplied() -> None:
    image = Image.frombytes("La", (3, 1), bytes([100, 128, 0, 0, 40, 255]))
    for mode, grey in (("L", [[227, 255, 40]]), ("RGB", [[[227] * 3, [255] * 3, [40] * 3]])):
        assert np.asarray(decode_image(image, mode, "x")).tolist() == grey


def test_colour_with_alpha_multiplied() -> None:
    image = Image.frombytes("RGBa", (2, 1), bytes([100, 50, 0, 128, 0, 0, 0, 0]))
    assert np.asarray(decode_image(image, "RGB", "x")).tolist() == [[[227, 177, 127], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["LAB", "HSV"])
def test_grey_of_other_colour_spaces(mode: str) -> None:
    """The grey equals that of the same pixels in RGB."""
    image = Image.frombytes(mode, (2, 1), bytes([120, 90, 200, 30, 128, 128]))
    assert np.array_equal(decode_image(image, "L", "x"), decode_image(image, "RGB", "x").convert("L"))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bit_modes(mode: str) -> None:
    values = np.array([[0, 300, 40000, 65535]])
    image = Image.frombytes(mode, (4, 1), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    assert np.array_equal(decode_image(image, "L", "x"), np.rint(values / 257))
