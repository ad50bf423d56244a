"""Tests of `seewhy_export.sources.checkpoint_reading`: damaged and foreign files give one line, never weights."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch

from seewhy.errors import ExportError
from seewhy_export.sources.checkpoint_reading import read_checkpoint

WEIGHTS = {"weight": torch.arange(3000.0), "bias": torch.ones(7)}
DAMAGED = "is not a PyTorch checkpoint, or is damaged or incomplete"


def saved(is_zip: bool = True) -> bytes:
    stored = io.BytesIO()
    torch.save(WEIGHTS, stored, _use_new_zipfile_serialization=is_zip)
    return stored.getvalue()


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str = "F32", shape: tuple[int, ...] = (4,), end: int = 16) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.pth", b"", "is empty"),
        ("text.pth", b"hello, these are no weights\n" * 20, DAMAGED),
        ("letter.pth", b"e", DAMAGED),
        ("number.pth", pickle.dumps(5), DAMAGED),
        ("zeros.pth", bytes(1000), DAMAGED),
        ("archive.pth", b"PK\x03\x04" + bytes(100), DAMAGED),
        ("cut.pth", saved()[:-300], DAMAGED),
        ("cut.pth", saved(is_zip=False)[:-300], DAMAGED),
        ("page.pth", b"<!DOCTYPE html><html></html>", "is an HTML page; the download did not return the checkpoint"),
        (
            "pointer.pth",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a Git LFS pointer; fetch .*git lfs pull",
        ),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (
            "keras.h5",
            b"\x89HDF\r\n\x1a\n" + bytes(500),
            "is an HDF5 file, as Keras writes, and not a PyTorch checkpoint",
        ),
        ("empty.safetensors", b"", "is empty"),
        ("large.safetensors", safetensors({}, length=2**60), "is not a safetensors file"),
        ("list.safetensors", safetensors([1]), "is not a safetensors file"),
        ("short.safetensors", safetensors(tensor(end=400), bytes(16)), "is not a safetensors file"),
        ("negative.safetensors", safetensors(tensor(shape=(-4,)), bytes(16)), "is not a safetensors file"),
        ("overflow.safetensors", safetensors(tensor(shape=(2**62, 4)), bytes(16)), "is not a safetensors file"),
        ("dtype.safetensors", safetensors(tensor("Q9"), bytes(16)), "is not a safetensors file"),
        ("renamed.safetensors", saved(), "is not a safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ExportError, match=message) as caught:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{tmp_path / name}: ")


def test_random_bytes(tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(300):
        (tmp_path / "random.pth").write_bytes(generator.randbytes(generator.randrange(1, 80)))
        with pytest.raises(ExportError):
            read_checkpoint(tmp_path / "random.pth")


def test_damaged_archives_never_give_other_weights(tmp_path: Path) -> None:
    generator = random.Random(0)
    original = saved()
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(generator.randrange(1, 4)):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (tmp_path / "damaged.pth").write_bytes(data)
        try:
            read = read_checkpoint(tmp_path / "damaged.pth")
        except ExportError:
            refused += 1
        else:  # the damage is in padding
            assert read.keys() == WEIGHTS.keys()
            assert all(torch.equal(read[name], value) for name, value in WEIGHTS.items())
    assert refused > 100


def test_an_archive_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    read = read_checkpoint(tmp_path / "model.pth")
    assert all(torch.equal(read[name], value) for name, value in WEIGHTS.items())
