"""Tests of `seewhy.quantization.image_split`: which images are chosen, and which take the place of skipped ones."""

from __future__ import annotations

import random
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, ImageError, MissingExtraError, SeewhyError
from seewhy._shared.arrays import Floats
from seewhy.quantization.image_split import split
from support.repository import ROOT
from support.tiny_model import Tiny

COUNT = 300
ORDER = random.Random(0).sample(range(COUNT), COUNT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images that differ in their brightness."""
    made = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        Image.new("RGB", (20, 24), (i % 256, i // 256, 0)).save(made / f"{i:03}.png")
    return made


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer(Tiny().save(tmp_path_factory.mktemp("model") / "tiny.onnx"), threads=1)


def pixels_of(explainer: Explainer, folder: Path, numbers: list[int]) -> Floats:
    return explainer.preprocess([folder / f"{number:03}.png" for number in numbers])


def test_at_most_160_images_are_chosen_at_random(folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    calibration, held_out = split(folder, (), tmp_path / "small.onnx", explainer, None)
    np.testing.assert_array_equal(calibration, pixels_of(explainer, folder, ORDER[:64]))
    np.testing.assert_array_equal(held_out, pixels_of(explainer, folder, ORDER[64:160]))


@pytest.mark.parametrize("form", ["folder", "archive", "list"])
def test_the_next_images_take_the_place_of_skipped_ones(
    form: str, folder: Path, explainer: Explainer, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    copy.mkdir()
    broken = [*ORDER[3:5], ORDER[160]]  # the last one is reached only because of the others
    for i in range(COUNT):
        content = b"broken" if i in broken else (folder / f"{i:03}.png").read_bytes()
        (copy / f"{i:03}.png").write_bytes(content)
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(copy, "images")
    given = {
        "folder": copy,
        "archive": tmp_path / "images.tar",
        "list": [p.read_bytes() for p in sorted(copy.iterdir())],
    }
    skipped: list[SeewhyError] = []
    parts = split(given[form], (), tmp_path / "small.onnx", explainer, skipped.append)
    assert [len(part) for part in parts] == [64, 96]
    expected = [number for number in ORDER if number not in broken][:160]
    np.testing.assert_array_equal(np.concatenate(parts), pixels_of(explainer, folder, expected))
    assert len(skipped) == len(broken)


def test_images_that_are_not_chosen_are_not_read(folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    images = [
        b"broken" if number in ORDER[160:] else (folder / f"{number:03}.png").read_bytes() for number in range(COUNT)
    ]
    calibration, held_out = split(images, (), tmp_path / "small.onnx", explainer, None)
    assert len(calibration) + len(held_out) == 160


def test_a_missing_file_is_skipped_if_there_are_others(folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    paths = [*sorted(folder.iterdir())[:20], tmp_path / "nowhere.png"]
    skipped: list[SeewhyError] = []
    parts = split(paths, (), tmp_path / "small.onnx", explainer, skipped.append)
    assert [len(part) for part in parts] == [8, 12]
    assert len(skipped) == 1 and "nowhere.png" in str(skipped[0])
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file or folder"):
        split(paths, (), tmp_path / "small.onnx", explainer, None)
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file or folder"):
        split(paths[1:], (), tmp_path / "small.onnx", explainer, skipped.append)


def test_a_missing_file_is_skipped_even_if_it_would_not_be_chosen(
    folder: Path, explainer: Explainer, tmp_path: Path
) -> None:
    paths = sorted(folder.iterdir())
    paths[ORDER[-1]] = tmp_path / "typo"
    skipped: list[SeewhyError] = []
    parts = split(paths, (), tmp_path / "small.onnx", explainer, skipped.append)
    assert [str(error) for error in skipped] == [f"{tmp_path / 'typo'}: no such file or folder"]
    assert [len(part) for part in parts] == [64, 96]


def test_an_image_that_needs_an_extra_is_skipped_or_raises(
    folder: Path, explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "photo.heic").write_bytes((ROOT / "tests" / "data" / "heif" / "rgb.heic").read_bytes())
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    paths = [*sorted(folder.iterdir())[:20], tmp_path / "images"]
    skipped: list[SeewhyError] = []
    parts = split(paths, (), tmp_path / "small.onnx", explainer, skipped.append)
    assert [len(part) for part in parts] == [8, 12]
    assert [type(error) for error in skipped] == [MissingExtraError]
    with pytest.raises(MissingExtraError, match=r"photo\.heic"):
        split(paths, (), tmp_path / "small.onnx", explainer, None)


def test_pixels_are_validated(explainer: Explainer, tmp_path: Path) -> None:
    pixels = np.zeros((20, 3, *explainer.metadata.image_size), np.float32)
    pixels[5] = np.nan
    with pytest.raises(ImageError, match="finite|NaN"):
        split(pixels, (), tmp_path / "small.onnx", explainer, None)
    with pytest.raises(ArgumentError, match="images must be paths"):
        split({"a": 1}, (), tmp_path / "small.onnx", explainer, None)
