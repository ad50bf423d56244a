"""Tests of `seewhy.images.decoding`: images of every kind are decoded correctly or refused with one line."""

from __future__ import annotations

import errno
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, JpegImagePlugin

from seewhy import ImageError
from seewhy.contract.constants import MAX_PIXELS
from seewhy.images.decoding import decode_file, decode_image, extensions
from support.files.image_files import bomb

MakeImage = Callable[..., Image.Image]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def saved(image: Image.Image, path: Path, **options: object) -> Image.Image:
    image.save(path, **options)  # type: ignore[arg-type]
    return decode_file(path, "RGB").image


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_eight_bit_modes_equal_pillows_own_conversion(make_image: MakeImage, mode: str) -> None:
    image = make_image().convert(mode)
    for wanted in ("RGB", "L"):
        if mode == "HSV" and wanted == "L":
            continue  # Pillow has no such conversion, so there is nothing to compare with
        assert np.array_equal(pixels(decode_image(image, wanted, "x")), pixels(image.convert(wanted)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path: Path, make_image: MakeImage, orientation: int, suffix: str) -> None:
    """The upright image has a red corner at the top left and a blue one at the top right."""
    upright = np.full((48, 80, 3), 255, np.uint8)
    upright[:16, :16] = (255, 0, 0)
    upright[:16, -16:] = (0, 0, 255)
    # The stored pixels of each orientation: the EXIF standard defines where row 0 and column 0 are.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    found = saved(Image.fromarray(np.ascontiguousarray(stored)), tmp_path / f"x{suffix}", exif=exif, **options)
    assert np.abs(pixels(found).astype(int) - upright).max() <= (40 if suffix == ".jpg" else 0)  # JPEG rings at edges


def test_pil_image_with_orientation_is_not_modified(make_image: MakeImage) -> None:
    image = make_image(40, 30)
    image.getexif()[0x0112] = 6
    before = pixels(image).copy()
    assert decode_image(image, "RGB", "x").size == (30, 40)
    assert image.size == (40, 30) and image.getexif()[0x0112] == 6
    assert np.array_equal(pixels(image), before)


def test_damaged_exif_is_ignored(tmp_path: Path, make_image: MakeImage) -> None:
    image = make_image()
    image.save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(pixels(decode_file(tmp_path / "x.png", "RGB").image), pixels(image))


def test_transparency_is_composited_onto_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[...] = (200, 100, 0, 255)
    rgba[0] = (200, 100, 0, 0)  # transparent, with colours hidden under it
    rgba[1] = (200, 100, 0, 128)
    expected = np.full((4, 4, 3), (200, 100, 0), np.uint8)
    expected[0] = 255
    expected[1] = np.rint(np.array([200, 100, 0]) * 128 / 255 + 255 * 127 / 255)
    found = saved(Image.fromarray(rgba), tmp_path / "a.png")
    assert np.abs(pixels(found).astype(int) - expected).max() <= 1  # Pillow's integer blending
    assert np.array_equal(pixels(found)[[0, 2, 3]], expected[[0, 2, 3]])
    opaque = rgba.copy()
    opaque[..., 3] = 255
    assert np.array_equal(pixels(decode_image(Image.fromarray(opaque), "RGB", "x")), opaque[..., :3])


def test_grey_with_alpha(tmp_path: Path) -> None:
    grey = np.dstack([np.full((2, 2), 40, np.uint8), np.array([[255, 0], [255, 255]], np.uint8)])
    found = saved(Image.fromarray(grey), tmp_path / "la.png")
    assert pixels(found)[..., 0].tolist() == [[40, 255], [40, 40]]


def test_palette_with_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    found = saved(image, tmp_path / "p.png", transparency=1)
    assert pixels(found)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    found = saved(image, tmp_path / "p.gif", transparency=2)
    assert pixels(found)[0].tolist() == [[10, 20, 30], [40, 50, 60], [255, 255, 255]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    """Pillow writes Adobe's inverted CMYK, and the decoder inverts it again: red stays red."""
    image = Image.new("RGB", (16, 16), (220, 30, 40)).convert("CMYK")
    found = saved(image, tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(pixels(found).astype(int) - (220, 30, 40)).max() <= 4


def test_sixteen_bits(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 128 * 257, 65535], [128, 129, 300, 65000]], np.uint16)
    expected = np.rint(grey / 257).astype(np.uint8)
    for suffix in (".png", ".tif", ".pgm"):
        path = tmp_path / f"x{suffix}"
        Image.fromarray(grey).save(path)
        found = pixels(decode_file(path, "RGB").image)
        assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2)), suffix
    big_endian = Image.frombytes("I;16B", (4, 2), grey.astype(">u2").tobytes())
    assert np.array_equal(pixels(decode_image(big_endian, "L", "x")), expected)
    assert np.array_equal(pixels(decode_image(Image.fromarray(grey.astype(np.int32)), "L", "x")), expected)


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    """A 16-bit RGB PNG, written by hand because Pillow writes none."""
    rgb = np.array([[[0, 65535, 32896], [257 * 7, 257 * 200, 257]]], ">u2")
    row = b"\0" + rgb.tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    path = tmp_path / "rgb16.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert pixels(decode_file(path, "RGB").image).tolist() == [[[0, 255, 128], [7, 200, 1]]]


def test_floating_point() -> None:
    unit = np.array([[0, 0.5, 1]], np.float32)
    assert pixels(decode_image(Image.fromarray(unit), "L", "x")).tolist() == [[0, 128, 255]]
    byte = np.array([[0, 100.4, 255]], np.float32)
    assert pixels(decode_image(Image.fromarray(byte), "L", "x")).tolist() == [[0, 100, 255]]


@pytest.mark.parametrize("values", [[-1, 0], [0, 256], [0, np.nan], [0, np.inf]])
def test_floating_point_without_a_meaning(values: list[float]) -> None:
    with pytest.raises(ImageError, match="x: floating-point pixels must be from 0 to 1"):
        decode_image(Image.fromarray(np.array([values], np.float32)), "L", "x")


@pytest.mark.parametrize("values", [[-1, 5], [0, 70000]])
def test_integers_without_a_meaning(values: list[int]) -> None:
    with pytest.raises(ImageError, match="x: integer pixels must be from 0 to 65535, not from"):
        decode_image(Image.fromarray(np.array([values], np.int32)), "L", "x")


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(decode_file(tmp_path / "a.gif", "RGB").image)[0, 0].tolist() == [255, 0, 0]


# Bad input.


def refused(path: Path, words: str) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        decode_file(path, "RGB")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_empty_folder_text(tmp_path: Path) -> None:
    refused(tmp_path / "none.jpg", "cannot be read: No such file")
    refused(tmp_path, "is a folder, not an image")
    (tmp_path / "zero.jpg").touch()
    refused(tmp_path / "zero.jpg", "the file is empty")
    (tmp_path / "text.jpg").write_text("not a picture")
    refused(tmp_path / "text.jpg", "not an image in a supported format")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_no_permission(tmp_path: Path, make_image: MakeImage) -> None:
    path = tmp_path / "x.png"
    make_image().save(path)
    path.chmod(0)
    refused(path, "cannot be read: Permission denied")


def test_null_byte_in_the_name() -> None:
    with pytest.raises(ImageError):
        decode_file("a\0b.png", "RGB")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated(tmp_path: Path, make_image: MakeImage, suffix: str, fraction: float) -> None:
    path = tmp_path / f"x{suffix}"
    make_image(200, 150).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    refused(path, f"x{suffix}: ")


def test_truncated_images_load_if_pillow_is_configured_so(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    test_path = tmp_path / "x.jpg"
    make_image(200, 150).save(test_path)
    test_path.write_bytes(test_path.read_bytes()[:-2000])
    assert decode_file(test_path, "RGB").image.size == (200, 150)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".gif", ".webp"])
def test_damaged_bytes_raise_image_errors_only(tmp_path: Path, make_image: MakeImage, seed: int, suffix: str) -> None:
    """Damaged pixels may go unnoticed, but no other exception is raised."""
    path = tmp_path / f"x{suffix}"
    make_image(60, 40).save(path)
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(0, min(len(data), 200), 4):
        data[position] = int(random.integers(256))
    path.write_bytes(data)
    try:
        decode_file(path, "RGB")
    except ImageError as error:
        assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(50_000, 50_000))
    refused(path, "refused as a decompression bomb")
    # The limit also holds in a program that removes Pillow's own limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    refused(path, f"50000x50000 pixels are more than {MAX_PIXELS}")


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_a_lower_limit_of_the_program_holds(
    name: str, tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image().save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 // 2)
    decode_file(tmp_path / name, "RGB")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 // 2 - 1)
    refused(tmp_path / name, r"refused as a decompression bomb: .*\b1200 pixels.* limit of 1198\b")


def test_pil_image_too_large() -> None:
    image = Image.new("1", (20_000, 9_000))
    with pytest.raises(ImageError, match="20000x9000 pixels"):
        decode_image(image, "RGB", "x")


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.eps"
    Image.new("RGB", (8, 8)).save(path)
    refused(path, "vector graphics have no pixels")
    refused(path.rename(tmp_path / "x.png"), "not an image in a supported format")
    assert ".eps" not in extensions() and ".wmf" not in extensions()
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif"} <= extensions()


# Warnings of Pillow.


def test_warnings_of_damage_are_not_shown(tmp_path: Path, make_image: MakeImage) -> None:
    path = tmp_path / "x.tif"
    make_image().save(path)
    path.write_bytes(path.read_bytes() + b"x")
    data = bytearray(path.read_bytes())
    count = struct.unpack_from("<H", data, struct.unpack_from("<I", data, 4)[0])[0]
    fields = struct.unpack_from("<I", data, 4)[0] + 2
    struct.pack_into("<HHII", data, fields + 12 * (count - 1), 305, 2, 1000, len(data) + 5)  # a text beyond the end
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with pytest.raises(UserWarning, match="Truncated File Read|EXIF|larger than file"), Image.open(path) as image:
            image.load()
        assert decode_file(path, "RGB").image.size == (40, 30)
        assert list(warnings.filters) == before


def pillow_is_quiet() -> bool:
    """Return True if a filter ignores all warnings of Pillow's modules."""
    return any(action == "ignore" and where and where.match("PIL.Image") for action, _, _, where, _ in warnings.filters)


def test_warning_filters_are_restored_after_overlapping_threads(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thread restores the filters, and changes made by other code in between stay."""
    before = list(warnings.filters)
    assert not pillow_is_quiet()
    make_image().save(tmp_path / "x.png")
    entered, may_leave = threading.Semaphore(0), threading.Semaphore(0)
    real = Image.open

    def slow(*arguments: Any, **options: Any) -> Image.Image:
        entered.release()
        assert may_leave.acquire(timeout=60)
        return real(*arguments, **options)

    with ThreadPoolExecutor(2) as pool, monkeypatch.context() as patch:
        patch.setattr(Image, "open", slow)
        decoding = [pool.submit(decode_file, tmp_path / "x.png", "RGB") for _ in range(2)]
        for _ in decoding:
            assert entered.acquire(timeout=60)
        warnings.filterwarnings("ignore", message="somebody else's")
        may_leave.release()
        wait(decoding, return_when=FIRST_COMPLETED)
        assert pillow_is_quiet()
        with warnings.catch_warnings():
            may_leave.release()
            wait(decoding)
            assert not pillow_is_quiet()
    assert pillow_is_quiet()  # restored by `catch_warnings`
    decode_file(tmp_path / "x.png", "RGB")
    assert not pillow_is_quiet() and list(warnings.filters)[1:] == before
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decode_file(tmp_path / "x.png", "RGB"), range(200)))
    assert list(warnings.filters)[1:] == before


def test_too_little_memory(tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image().save(tmp_path / "x.jpg")

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    refused(tmp_path / "x.jpg", "x.jpg: not enough memory to decode 40x30 pixels")
    monkeypatch.setattr(JpegImagePlugin, "jpeg_factory", fail)
    refused(tmp_path / "x.jpg", "x.jpg: not enough memory to decode the image")


def test_reasons_are_printable(tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image().save(tmp_path / "x.jpg")
    for error, words in [
        (ValueError("two\nlines \x1b[2J"), r"damaged image.*: two\\nlines \\x1b\[2J"),
        (KeyError(), "damaged image.*: KeyError"),
        (ValueError("x" * 5000), "x" * 50 + r"\.\.\." + "x" * 25 + "$"),
    ]:

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        refused(tmp_path / "x.jpg", words)


@pytest.mark.parametrize("strip", [1, 41, 100])
def test_strips_make_no_difference(make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    """What needs much memory for each pixel is done for some rows at a time."""
    image = make_image(40, 30)
    alpha = image.convert("RGBA")
    alpha.putalpha(make_image(40, 30, seed=3).convert("L"))
    palette = image.quantize(50)
    palette.info["transparency"] = bytes(range(0, 250, 5))
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257 + 3 * np.arange(40, dtype=np.uint16)
    grey = np.minimum(grey, 65000).astype(np.uint16)
    images = [alpha, alpha.convert("LA"), palette, Image.fromarray(grey), Image.fromarray(grey.astype(np.int32))]
    images += [Image.fromarray(grey.astype(np.float32) / divisor) for divisor in (65535, 257)]
    whole = [pixels(decode_image(each, mode, "x")) for each in images for mode in ("RGB", "L")]
    monkeypatch.setattr("seewhy.images.pixel_depth.STRIP", strip)
    parts = [pixels(decode_image(each, mode, "x")) for each in images for mode in ("RGB", "L")]
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert len({one.tobytes() for one in whole}) == 8  # four ways to write the same grey


def test_a_system_without_files_left_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many open files"):
        decode_file(tmp_path / "a.png", "RGB")
