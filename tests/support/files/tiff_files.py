"""TIFF files of any pixel layout, written from their samples with `struct` and NumPy alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

Value: TypeAlias = int | Sequence[int]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773

_SHORT, _LONG, _LONG8 = 3, 4, 16
_FORMAT = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def tiff(
    samples: np.ndarray,
    photometric: int | None,
    bits: int,
    *,
    kind: int = UNSIGNED,
    order: str = "<",
    fill_order: int = 1,
    planar: bool = False,
    extra: Sequence[int] = (),
    compression: int = NONE,
    predictor: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    big: bool = False,
    colormap: np.ndarray | None = None,
    tags: Mapping[int, Value] | None = None,
) -> bytes:
    """Return a TIFF file of one page.

    Args:
        samples: Sample values as stored in the file, of shape (H, W) or (H, W, samples per pixel).
        photometric: PhotometricInterpretation, or None to leave the tag out.
        bits: Number of bits per sample (BitsPerSample).
        kind: SampleFormat: UNSIGNED, SIGNED or FLOAT.
        order: Byte order: "<" (II) or ">" (MM).
        fill_order: 2 to store the lowest bit of each byte first.
        planar: True to store each sample in a separate plane.
        extra: ExtraSamples.
        compression: NONE, LZW, DEFLATE or PACKBITS.
        predictor: 2 to store differences of neighboring samples, 3 to store differences of floating-point bytes.
        rows: Number of rows per strip; all rows by default.
        tile: Side length of the tiles in pixels, to use tiles instead of strips.
        big: True to write a BigTIFF.
        colormap: Palette of shape (2**bits, 3) with 16-bit values.
        tags: Additional tags, or values that replace those above.
    """
    return tiff_pages([{**locals()}], order, big)


def tiff_pages(pages: Sequence[Mapping[str, object]], order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF file of several pages; each page is a mapping of the arguments of `tiff`."""
    number = order + ("Q" if big else "I")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, 0) if big else struct.pack(order + "I", 0)
    content = bytearray(head)
    link = len(head) - struct.calcsize(number)
    for page in pages:
        options = {key: value for key, value in page.items() if key not in ("order", "big")}
        content, link = _append(content, link, order, big, **options)  # type: ignore[arg-type]
    return bytes(content)


def _append(
    content: bytearray,
    link: int,
    order: str,
    big: bool,
    samples: np.ndarray,
    photometric: int | None,
    bits: int,
    kind: int = UNSIGNED,
    fill_order: int = 1,
    planar: bool = False,
    extra: Sequence[int] = (),
    compression: int = NONE,
    predictor: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    colormap: np.ndarray | None = None,
    tags: Mapping[int, Value] | None = None,
) -> tuple[bytearray, int]:
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, count = samples.shape
    planes = [samples[..., i : i + 1] for i in range(count)] if planar else [samples]
    if tile is None:
        rows = rows or height
        blocks = [plane[top : top + rows] for plane in planes for top in range(0, height, rows)]
    else:
        padding = ((0, -height % tile), (0, -width % tile), (0, 0))
        padded = [np.pad(plane, padding) for plane in planes]
        blocks = [
            plane[top : top + tile, left : left + tile]
            for plane in padded
            for top in range(0, height, tile)
            for left in range(0, width, tile)
        ]
    offsets, lengths = [], []
    for block in blocks:
        data = _compressed(_packed(block, bits, kind, order, predictor), compression)
        content += bytes(len(content) % 2)
        offsets.append(len(content))
        lengths.append(len(data))
        content += data.translate(_REVERSED) if fill_order == 2 else data
    fields: dict[int, Value] = {256: width, 257: height, 258: [bits] * count, 259: compression, 277: count, 339: kind}
    fields |= {} if photometric is None else {262: photometric}
    fields |= {266: fill_order, 284: 2 if planar else 1, 317: predictor, 339: [kind] * count}
    fields |= {273: offsets, 279: lengths, 278: rows or height} if tile is None else {}
    fields |= {} if tile is None else {322: tile, 323: tile, 324: offsets, 325: lengths}
    fields |= {338: list(extra)} if extra else {}
    fields |= {} if colormap is None else {320: colormap.T.ravel().tolist()}
    return _directory(content, link, order, big, {**fields, **(tags or {})})


def _directory(
    content: bytearray, link: int, order: str, big: bool, fields: Mapping[int, Value]
) -> tuple[bytearray, int]:
    number, value_bytes = order + ("Q" if big else "I"), 8 if big else 4
    content += bytes(len(content) % 2)
    entries = b""
    for tag, value in sorted(fields.items()):
        values = [value] if isinstance(value, int) else value
        kind = (_LONG8 if big else _LONG) if tag in (273, 279, 324, 325) else _SHORT
        data = struct.pack(f"{order}{len(values)}{_FORMAT[kind]}", *values)
        entries += struct.pack(order + "HH", tag, kind) + struct.pack(number, len(values))
        if len(data) > value_bytes:
            entries += struct.pack(number, len(content))
            content += data + bytes(len(data) % 2)
        else:
            entries += data.ljust(value_bytes, b"\0")
    struct.pack_into(number, content, link, len(content))
    content += struct.pack(order + ("Q" if big else "H"), len(fields)) + entries
    return content + bytes(value_bytes), len(content)


def _packed(block: np.ndarray, bits: int, kind: int, order: str, predictor: int) -> bytes:
    letter = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[kind]
    if bits in (8, 16, 32, 64):
        stored = block.astype(f"{order}{letter}{bits // 8}")
        if predictor == 2:
            words = stored.view(f"{order}u{bits // 8}")
            stored = np.concatenate([words[:, :1], words[:, 1:] - words[:, :-1]], axis=1).astype(words.dtype)
        if predictor == 3:  # all highest bytes of a row, then all second highest, and so on; then differences
            planes = block.astype(f">{letter}{bits // 8}").view(np.uint8).reshape(*block.shape, -1)
            row = planes.transpose(0, 3, 1, 2).reshape(len(block), -1, block.shape[2])
            stored = np.concatenate([row[:, :1], row[:, 1:] - row[:, :-1]], axis=1)
        return stored.tobytes()
    values = block.astype(np.int64).reshape(len(block), -1, 1)
    digits = values >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.reshape(len(block), -1).astype(np.uint8), axis=1).tobytes()


def _compressed(data: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:
        return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))
    if compression == LZW:  # 9-bit codes only: the table is cleared before the codes become longer
        codes = [code for i in range(0, len(data), 200) for code in (256, *data[i : i + 200])]
        digits = np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1) & 1
        return np.packbits(digits.ravel().astype(np.uint8)).tobytes()
    return data
