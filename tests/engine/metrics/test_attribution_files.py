"""Tests of the attributions of other tools."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seewhy import ArgumentError, NotMeasurable
from seewhy.metrics.attribution_files import list_methods, read

SHAPE = (3, 12, 16)


def save(path: Path, array: np.ndarray, **more: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, attribution=array, **more)
    return path


def numbers(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:]])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_are_read(tmp_path: Path, shape: tuple[int, ...], order: str, write: Callable[..., None]) -> None:
    (tmp_path / "lime/cats").mkdir(parents=True)
    array = numbers(shape)
    write(tmp_path / "lime/cats/a.npz", attribution=np.asarray(array, order=order), logits=np.zeros(1000))  # type: ignore[call-overload]
    found = read(tmp_path, "lime", "cats/a", SHAPE)
    assert found is not None and found.dtype == np.float32 and found.flags.c_contiguous
    assert np.array_equal(found, array)
    for method, name in (("lime", "cats/b"), ("shap", "cats/a")):
        with pytest.raises(NotMeasurable, match=f"the folder of attributions has no {method}/{name}.npz"):
            read(tmp_path, method, name, SHAPE)


def refused(folder: Path, words: str, name: str = "a") -> None:
    with pytest.raises((ArgumentError, NotMeasurable), match=words) as raised:
        read(folder, "lime", name, SHAPE)
    assert "\n" not in str(raised.value) and f"lime/{name}.npz" in str(raised.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (numbers((16, 12)), r"the array is float32 of shape \(16, 12\); .* shape \(12, 16\) or \(3, 12, 16\)"),
        (numbers((1, 12, 16)), r"of shape \(1, 12, 16\)"),
        (numbers((24, 32)), r"of shape \(24, 32\)"),
        (np.float32(3), r"of shape \(\)"),
        (numbers().astype(np.float64), "the array is float64"),
        (numbers().astype(">f4"), "the array is >f4"),
        (numbers().astype(np.complex64), "the array is complex64"),
        (np.zeros(SHAPE, np.uint8), "the array is uint8"),
        (np.full(SHAPE, np.nan, np.float32), "the array holds NaN or infinity"),
        (np.full(SHAPE, np.inf, np.float32), "the array holds NaN or infinity"),
        (np.array([print] * 192, object).reshape(12, 16), "the array is object"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    (tmp_path / "lime").mkdir()
    with zipfile.ZipFile(tmp_path / "lime/a.npz", "w") as archive, archive.open("attribution.npy", "w") as member:
        np.lib.format.write_array(member, np.asarray(array), allow_pickle=True)
    refused(tmp_path, words)


def archive(content: bytes, name: str = "attribution.npy", **more: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **more) as file:  # type: ignore[call-overload]
        file.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray, shape: str | None = None) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    return content if shape is None else content.replace(str(array.shape).encode(), shape.encode())


def encrypted() -> bytes:
    """Return an archive whose headers say that its member is encrypted."""
    content = bytearray(archive(npy(numbers())))
    content[6] |= 1
    start = content.rfind(b"PK\1\2")
    content[start + 8] |= 1
    return bytes(content)


def flipped() -> bytes:
    content = bytearray(archive(npy(numbers())))
    content[1000] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "File is not a zip file"),
        (b"\x80\x04N.", "File is not a zip file"),
        (archive(npy(numbers()))[:-30], "File is not a zip file"),
        (flipped(), "Bad CRC-32"),
        (encrypted(), "is encrypted"),
        (archive(npy(numbers()), "attributions.npy"), "0 arrays are named attribution; the arrays are attributions"),
        (archive(npy(numbers()), compression=zipfile.ZIP_LZMA), "the compression is not that of numpy.savez"),
        (archive(b"\0" * 10**8, compression=zipfile.ZIP_DEFLATED), "the magic string is not correct"),
        (archive(npy(numbers()) + b"\0" * 10**8, compression=zipfile.ZIP_DEFLATED), "length differs from its shape"),
        (archive(npy(numbers())[:-4]), "length differs from its shape"),
        (archive(npy(numbers(), "(99999999999999,)")), r"of shape \(99999999999999,\)"),
        (archive(npy(numbers(), "__import__('os')")), "Cannot parse header|malformed"),
        (archive(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31)), "EOF: reading array header"),
        (archive(b"\x93NUMPY\x03\x00" + npy(numbers())[8:]), r"has version \(3, 0\) of the npy format"),
        (archive(npy(numbers())) + b"\0" * 2 * 10**6, "bytes, more than 16 arrays of this size"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "lime").mkdir()
    (tmp_path / "lime/a.npz").write_bytes(content)
    refused(tmp_path, words)


def test_an_array_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lime").mkdir()
    with zipfile.ZipFile(tmp_path / "lime/a.npz", "w") as file:
        file.writestr("attribution.npy", npy(numbers()))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("attribution.npy", npy(numbers((12, 16))))
    refused(tmp_path, "2 arrays are named attribution")


def test_only_another_array_concerns_all_images(tmp_path: Path) -> None:
    """NaN and damage concern one image, and are reported for it."""
    save(tmp_path / "lime/size.npz", np.zeros((3, 3), np.float32))
    save(tmp_path / "lime/nan.npz", np.full((12, 16), np.nan, np.float32))
    (tmp_path / "lime/damaged.npz").write_bytes(flipped())
    with pytest.raises(ArgumentError, match=r"the array is float32 of shape \(3, 3\)"):
        read(tmp_path, "lime", "size", SHAPE)
    for name in ("nan", "damaged"):
        with pytest.raises(NotMeasurable, match=f"lime/{name}.npz cannot be used"):
            read(tmp_path, "lime", name, SHAPE)


def test_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lime/a.npz").mkdir(parents=True)
    refused(tmp_path, "it is a folder, not a file")
    os.mkfifo(tmp_path / "lime/b.npz")
    refused(tmp_path, "it is a pipe, not a regular file", "b")


def test_files_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = save(tmp_path / "secret/a.npz", numbers())
    inside = save(tmp_path / "maps/lime/real.npz", numbers())
    (inside.parent / "a.npz").symlink_to(outside)
    (inside.parent / "b.npz").symlink_to("real.npz")
    refused(tmp_path / "maps", "leads out of the folder of attributions, to .*secret/a.npz; copy the files there")
    refused(tmp_path / "maps", "leads out of the folder of attributions", "../../secret/a")
    assert read(tmp_path / "maps", "lime", "b", SHAPE) is not None
    (tmp_path / "maps/shap").symlink_to(outside.parent)
    with pytest.raises(ArgumentError, match=r"maps/shap: leads out of the folder of attributions"):
        list_methods(tmp_path / "maps")


def test_subfolders_are_methods(tmp_path: Path) -> None:
    for name in ("shap", "lime", "rise+", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "README").write_text("maps")
    assert list_methods(tmp_path) == ["lime", "rise+", "shap"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LIME", "at most 40 lower-case letters, digits, \\+ and -; rename the folder"),
        ("a\x1b[2J", r"a\\x1b\[2J: the name of a method"),
        ("gradcam", "SeeWhy has a method or reference named gradcam; rename the folder"),
        ("random", "SeeWhy has a method or reference named random"),
        ("centre", "SeeWhy has a method or reference named centre"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ArgumentError, match=words):
        list_methods(tmp_path)


def test_folders_without_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="has no subfolders; it must hold METHOD/NAME.npz"):
        list_methods(tmp_path)
    with pytest.raises(ArgumentError, match="cannot be listed: No such file or directory"):
        list_methods(tmp_path / "missing")
