"""Tests of `seewhy_export.sources.argument_forms`: labels, preprocessing and sizes in the forms of Python callers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.errors import ExportArgumentError
from seewhy_export import Preprocessing
from seewhy_export.sources.argument_forms import as_image_size, as_labels, as_preprocessing
from seewhy_export.sources.torchvision_import import import_torchvision


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        {0: "cat", 1: "dog"},
        {1: "dog", 0: "cat"},
        {"0": "cat", "1": "dog"},
        {"dog": 1, "cat": 0},
        np.array(["cat", "dog"]),
        (name for name in ("cat", "dog")),
        {0: "cat", 1: "dog"}.values(),
    ],
)
def test_labels(labels: Any) -> None:
    found = as_labels(labels)
    assert found == ("cat", "dog") and all(type(label) is str for label in found)


def test_labels_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert as_labels(tmp_path / "labels.txt") == as_labels(str(tmp_path / "labels.txt")) == ("cat", "dog")
    assert as_labels(None) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "labels: holds no labels"),
        ({0: "cat", 2: "dog"}, "labels: index 1 is missing; 2 labels are numbered 0 to 1"),
        ({"cat": 0, "dog": 0}, "labels: index 0 occurs twice"),
        ({"a": "cat"}, "labels: 'a' is not a class index"),
        ({0: "cat", 1: 5.5}, "labels: label 1 must be a string with text, not 5.5"),
        ({0: "cat", 1: object()}, "labels: label 1 must be a string with text"),
        (b"cat", "labels must be a list of labels in the order of the classes, .*, not b'cat'"),
        ({"cat", "dog"}, "labels must be a list of labels in the order of the classes"),
        (3, "labels must be a list .*, not 3$"),
    ],
)
def test_labels_of_other_forms(labels: Any, message: str) -> None:
    with pytest.raises(ExportArgumentError, match=message) as caught:
        as_labels(labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"mean": (0.5, 0.4), "std": [0.25, 1]},
        {"mean": np.array([0.5, 0.4]), "std": torch.tensor([0.25, 1.0])},
        Preprocessing("squash", None, "bilinear", False, (0.5, 0.4), (0.25, 1.0)),
    ],
)
def test_a_squash_with_mean_and_std(values: Any) -> None:
    found, size = as_preprocessing(values, 32)
    assert found == Preprocessing("squash", None, "bilinear", False, (0.5, 0.4), (0.25, 1.0), "RGB")
    assert size == (32, 32)
    assert as_preprocessing(found)[0] is found and as_preprocessing(None)[0] is None


def test_a_shorter_side_is_cropped_as_on_the_command_line() -> None:
    values = {"resize": "shorter-side", "size": 256, "interpolation": "bicubic", "mean": 0.5, "std": 0.25}
    assert as_preprocessing(values)[0] == Preprocessing("shorter-side", 256, "bicubic", True, (0.5,), (0.25,))
    assert as_preprocessing({**values, "crop": False})[0] == Preprocessing(
        "shorter-side", 256, "bicubic", False, (0.5,), (0.25,)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": 0.5}, "preprocessing lacks std"),
        ({}, "preprocessing lacks mean and std"),
        ({"mean": 0.5, "std": 0}, "preprocessing is not valid: .*positive stds"),
        ({"mean": 0.5, "std": float("nan")}, "preprocessing is not valid"),
        ({"mean": (0.5, 0.5), "std": 1}, "preprocessing is not valid: .*as many means as stds"),
        ({"mean": 0.5, "std": "wide"}, r"std must be one number per channel such as .*, not 'wide'"),
        ({"mean": None, "std": 1}, r"mean must be one number per channel such as .*, not None"),
        ({"mean": 0, "std": 1, "interpolaton": "bicubic"}, "no key 'interpolaton'. Did you mean 'interpolation'"),
        ({"mean": 0, "std": 1, 5: 5}, "no key 5. Keys are resize, size"),
        ({"mean": 0, "std": 1, "crop": "yes"}, "preprocessing is not valid"),
        ({"mean": 0, "std": 1, "resize": "shorter-side"}, "preprocessing is not valid: .*a size to resize to"),
        ({"mean": 0, "std": 1, "resize": "squash", "size": 40, "crop": False}, "squashes images to 40x40 pixels and"),
        ({"mean": 0, "std": 1, "size": object()}, "preprocessing is not valid"),
        ("imagenet", "preprocessing must be a seewhy_export.Preprocessing, .* or a dict such as .* not str$"),
        (lambda image: "text", "preprocessing cannot be recorded in a model file: it fails with ValueError: "),
        (lambda: None, "preprocessing cannot be recorded in a model file: it fails with TypeError: "),
    ],
)
def test_preprocessing_of_other_forms(values: Any, message: str) -> None:
    with pytest.raises(ExportArgumentError, match=message) as caught:
        as_preprocessing(values)
    assert "\n" not in str(caught.value)


def test_a_function_is_measured() -> None:
    transforms = import_torchvision().transforms
    steps = [transforms.Resize(72), transforms.CenterCrop(64), transforms.ToTensor()]
    compose = transforms.Compose([*steps, transforms.Normalize((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))])
    expected = Preprocessing("shorter-side", 72, "bilinear", True, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    assert as_preprocessing(compose) == (expected, (64, 64))
    assert as_preprocessing(compose, 64) == (expected, (64, 64))
    with pytest.raises(ExportArgumentError, match="gives arrays of 64x64 pixels, but image_size is 32x48; leave"):
        as_preprocessing(compose, (32, 48))
    preset = transforms._presets.ImageClassification(crop_size=64, resize_size=72)
    assert as_preprocessing(preset)[0] == Preprocessing("shorter-side", 72)
    # An image processor of transformers returns a dict of batches.
    processor = lambda image: {"pixel_values": [compose(image).numpy()]}  # noqa: E731
    assert as_preprocessing(processor) == (expected, (64, 64))


@pytest.mark.parametrize("size", [(20, 30), [20, 30], (np.int64(20), np.int64(30))])
def test_heights_and_widths(size: Any) -> None:
    assert as_image_size(size) == (20, 30)


@pytest.mark.parametrize("side", [64, np.int32(64)])
def test_one_side_means_a_square(side: Any) -> None:
    assert as_image_size(side) == (64, 64)


@pytest.mark.parametrize("size", [0, -3, 2.5, "64", None, True, (64,), (64, 0), (64, 2.0), (1, 2, 3), (True, 4)])
def test_other_sizes(size: Any) -> None:
    with pytest.raises(ExportArgumentError, match="image_size must be .height, width. or one side in pixels, not "):
        as_image_size(size)
