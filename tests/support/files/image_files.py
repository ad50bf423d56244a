"""Image files of many formats, made from one synthetic image, and edits of the sizes in their headers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, features

WIDTH, HEIGHT = 97, 66


def synthetic_image(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """Return an image of smooth colors, edges and a little noise: uint8 of shape (height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    smooth[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] //= 3
    return (smooth + random.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8)


@cache
def image_files() -> dict[str, bytes]:
    """Return the contents of image files of WIDTH x HEIGHT pixels, by the name of their format."""
    rgb = Image.fromarray(synthetic_image())
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph" * 20
    alpha = Image.merge("RGBA", (*rgb.split(), rgb.convert("L")))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    frames = [Image.fromarray(synthetic_image(seed=seed)) for seed in (0, 1, 2)]
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "baseline": (rgb, "JPEG", {"quality": 85}),
        "progressive": (rgb, "JPEG", {"progressive": True}),
        "cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "grey jpeg": (rgb.convert("L"), "JPEG", {"quality": 100}),
        "exif": (rgb, "JPEG", {"exif": exif, "comment": b"hello" * 9, "dpi": (72, 72)}),
        "mpo": (rgb, "MPO", more),
        "png": (rgb, "PNG", {}),
        "grey png": (rgb.convert("L"), "PNG", {}),
        "palette png": (rgb.quantize(60), "PNG", {"transparency": 3}),
        "16-bit png": (deep, "PNG", {}),
        "transparent png": (alpha, "PNG", {"exif": exif}),
        "animated png": (frames[0], "PNG", more),
        "webp": (rgb, "WEBP", {"quality": 80, "exif": exif}),
        "lossless webp": (alpha, "WEBP", {"lossless": True}),
        "animated webp": (frames[0], "WEBP", more),
        "gif": (rgb, "GIF", {}),
        "animated gif": (frames[0], "GIF", more),
        "tiff": (rgb, "TIFF", {"exif": exif}),
        "lzw tiff": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg tiff": (rgb, "TIFF", {"compression": "jpeg"}),
        "deflate tiff": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "two-tone tiff": (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        "bmp": (rgb, "BMP", {}),
        "palette bmp": (rgb.quantize(60), "BMP", {}),
        "ico": (rgb, "ICO", {"sizes": [(48, 32), (96, 66)]}),
        "ppm": (rgb, "PPM", {}),
        "tga": (rgb, "TGA", {"compression": "tga_rle"}),
        "pcx": (rgb, "PCX", {}),
        "sgi": (rgb, "SGI", {}),
    }
    if features.check("jpg_2000"):
        kinds["jpeg 2000"] = (rgb, "JPEG2000", {})
    if features.check("avif"):
        kinds["avif"] = (rgb, "AVIF", {})
    made = {}
    for kind, (image, form, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, form, **options)
        made[kind] = file.getvalue()
    return {**made, "interlaced png": interlaced_png(), "tiled tiff": tiled_tiff()}


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colours: int = 2, interlaced: bool = False) -> bytes:
    """Return a PNG with the given filtered pixel rows, which are not validated."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced)
    data = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    """Return a PNG with Adam7 interlacing, which Pillow reads but does not write."""
    pixels = synthetic_image()
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    return png(WIDTH, HEIGHT, b"".join(rows), interlaced=True)


def tiled_tiff(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Return a TIFF with uncompressed tiles of 32x32 pixels, which Pillow reads but does not write."""
    side = 32
    across, down = -(-width // side), -(-height // side)
    pixels = np.zeros((down * side, across * side, 3), np.uint8)
    pixels[:height, :width] = synthetic_image(width, height)
    tiles = [
        pixels[y : y + side, x : x + side].tobytes()
        for y in range(0, len(pixels), side)
        for x in range(0, pixels.shape[1], side)
    ]
    count = len(tiles)
    start = 8 + 2 + 11 * 12 + 4
    bits, offsets = start, start + 6
    lengths = offsets + 4 * count
    first = lengths + 4 * count
    size = len(tiles[0])
    short, long = 3, 4
    fields = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, bits),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (277, short, 1, 3),
        (284, short, 1, 1),
        (322, long, 1, side),
        (323, long, 1, side),
        (324, long, count, offsets),
        (325, long, count, lengths),
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *each) for each in fields) + bytes(4)
    return b"".join(
        (
            b"II*\0",
            struct.pack("<I", 8),
            directory,
            struct.pack("<HHH", 8, 8, 8),
            struct.pack(f"<{count}I", *(first + i * size for i in range(count))),
            struct.pack(f"<{count}I", *[size] * count),
            *tiles,
        )
    )


def resized(content: bytes, width: int, height: int) -> bytes:
    """Return the file with another width and height in its header, or unchanged if its format has no editor here."""
    data = bytearray(content)
    for start, edit in _HEADERS.items():
        if data.startswith(start):
            edit(data, width, height)
            break
    return bytes(data)


def _png(data: bytearray, width: int, height: int) -> None:
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))


def _gif(data: bytearray, width: int, height: int) -> None:
    struct.pack_into("<HH", data, 6, width & 0xFFFF, height & 0xFFFF)
    frame = data.find(b",\0\0\0\0")  # the first frame, at the top left
    if frame > 0:
        struct.pack_into("<HH", data, frame + 5, width & 0xFFFF, height & 0xFFFF)


def _bmp(data: bytearray, width: int, height: int) -> None:
    struct.pack_into("<II", data, 18, width & 0xFFFFFFFF, height & 0xFFFFFFFF)


def _jpeg(data: bytearray, width: int, height: int) -> None:
    position = 2
    while position + 9 < len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if 0xFFC0 <= marker <= 0xFFC2:
            struct.pack_into(">HH", data, position + 5, height & 0xFFFF, width & 0xFFFF)
            return
        position += 2 + length


def _tiff(data: bytearray, width: int, height: int) -> None:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for field in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(order + "H", data, field)
        if tag in (256, 257):
            struct.pack_into(order + "HII", data, field + 2, 4, 1, width if tag == 256 else height)


def _webp(data: bytearray, width: int, height: int) -> None:
    if data[12:16] == b"VP8X":
        data[24:27] = (width - 1 & 0xFFFFFF).to_bytes(3, "little")
        data[27:30] = (height - 1 & 0xFFFFFF).to_bytes(3, "little")
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little") & ~0xFFFFFFF
        data[21:25] = (bits | (width - 1 & 0x3FFF) | (height - 1 & 0x3FFF) << 14).to_bytes(4, "little")
    elif data[12:16] == b"VP8 ":
        struct.pack_into("<HH", data, 26, width & 0x3FFF, height & 0x3FFF)


_HEADERS: dict[bytes, Callable[[bytearray, int, int], None]] = {
    b"\x89PNG": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"\xff\xd8": _jpeg,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"RIFF": _webp,
}


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims width x height RGB pixels."""
    return png(width, height, b"")
