"""Tests of `seewhy_export.sources.measured_preprocessing` with torchvision's transforms, whose settings are known."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError
from seewhy.images.resizing import resize_and_crop
from seewhy_export.sources.measured_preprocessing import (
    UnmeasurableError,
    measure_preprocessing,
    source_preprocessing,
)
from seewhy_export.sources.torchvision_import import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def transforms() -> ModuleType:
    transforms: ModuleType = import_torchvision().transforms
    return transforms


def composed(transforms: ModuleType, *steps: Any, mean: Any = MEAN, std: Any = STD) -> Any:
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


@pytest.mark.parametrize(("length", "crop"), [(256, 224), (248, 224), (64, 64), (40, 33), (224, 256), (438, 384)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_shorter_side_then_crop(length: int, crop: int, interpolation: str, transforms: ModuleType) -> None:
    mode = transforms.InterpolationMode(interpolation)
    found, size = measure_preprocessing(
        composed(transforms, transforms.Resize(length, mode), transforms.CenterCrop(crop))
    )
    assert found == Preprocessing("shorter-side", length, interpolation, True, MEAN, STD)
    assert size == (crop, crop)


@pytest.mark.parametrize("size", [(224, 224), (48, 96), (33, 31), (384, 384)])
def test_squash(size: tuple[int, int], transforms: ModuleType) -> None:
    mode = transforms.InterpolationMode.BICUBIC
    found, measured = measure_preprocessing(composed(transforms, transforms.Resize(size, mode)))
    assert (found.resize, found.size, found.interpolation, found.crop) == ("squash", None, "bicubic", False)
    assert measured == size


def test_squash_then_crop(transforms: ModuleType) -> None:
    found, size = measure_preprocessing(
        composed(transforms, transforms.Resize((256, 256)), transforms.CenterCrop((224, 200)))
    )
    assert (found.resize, found.size, found.crop, size) == ("squash", 256, True, (224, 200))


def test_crop_alone(transforms: ModuleType) -> None:
    found, size = measure_preprocessing(composed(transforms, transforms.CenterCrop(48)))
    assert (found.resize, found.crop, size) == ("none", True, (48, 48))


@pytest.mark.parametrize("rounding", ["half-even", "down"])
@pytest.mark.parametrize("resize", [(80, 80), 80])
def test_the_rounding_of_the_crop(resize: Any, rounding: str, transforms: ModuleType) -> None:
    """80 - 61 = 19: the crop starts at 9.5, which is rounded to 10 by `half-even` and to 9 by `down`."""

    def start(length: int) -> int:
        return (length - 61) // 2 if rounding == "down" else round((length - 61) / 2)

    def process(image: Image.Image) -> Any:
        image = transforms.Resize(resize)(image)
        left, top = map(start, image.size)
        return transforms.ToTensor()(image.crop((left, top, left + 61, top + 61)))

    assert start(80) == {"half-even": 10, "down": 9}[rounding]
    assert measure_preprocessing(process)[0].crop_rounding == rounding


def test_colors(transforms: ModuleType) -> None:
    flipped = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), lambda x: x.flip(0), transforms.Normalize(MEAN, STD)]
    )
    assert measure_preprocessing(flipped)[0].channel_order == "BGR"
    signed = measure_preprocessing(composed(transforms, transforms.Resize((32, 32)), mean=[0.5] * 3, std=[0.5] * 3))[0]
    assert (signed.mean, signed.std, signed.channel_order) == ((0.5,) * 3, (0.5,) * 3, "RGB")
    plain = measure_preprocessing(transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()]))[0]
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    grey = transforms.Compose([transforms.Grayscale(), transforms.Resize((32, 32)), transforms.ToTensor()])
    assert measure_preprocessing(grey)[0].mean == (0.0,)


def test_padding_by_an_odd_number(transforms: ModuleType) -> None:
    """221 + 3 = 224: `half-even` pads one pixel on the left and two on the right, `down` two and one."""
    for left, rounding in ((1, "half-even"), (2, "down")):
        pad = transforms.Pad((left, left, 3 - left, 3 - left))
        found, size = measure_preprocessing(composed(transforms, transforms.Resize((221, 221)), pad, mean=0, std=1))
        assert (found.size, found.crop, found.crop_rounding, size) == (221, True, rounding, (224, 224))


def test_grey_networks(transforms: ModuleType) -> None:
    grey = composed(transforms, transforms.Resize((32, 32)), mean=[0.2], std=[0.5])
    found, size = source_preprocessing("my:model", grey, channels=1)
    assert found is not None and (found.mean, found.std, size) == ((0.2,), (0.5,), (32, 32))
    colored = composed(transforms, transforms.Resize((32, 32)))
    assert source_preprocessing("my:model", colored, channels=1) == (None, None)
    assert source_preprocessing("my:model", colored, channels=4) == (None, (32, 32))


def test_tensors_are_within_the_tolerance(make_image: Callable[..., Image.Image]) -> None:
    """A transform that resizes tensors gives the same settings; its pixels differ by rounding."""
    v2 = import_torchvision() and pytest.importorskip("torchvision.transforms.v2")
    transform = v2.Compose(
        [v2.ToImage(), v2.Resize(72, antialias=True), v2.CenterCrop(64), v2.ToDtype(torch.float32, scale=True)]
    )
    found, size = measure_preprocessing(transform)
    assert (found.resize, found.size, found.interpolation, size) == ("shorter-side", 72, "bilinear", (64, 64))
    image = make_image(150, 100)
    ours = np.asarray(resize_and_crop(image, found, size, "x")[0], np.float64)
    assert np.abs(ours - 255 * transform(image).numpy().transpose(1, 2, 0)).max() <= 2.01


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sizes differ": (lambda t: composed(t, t.Resize(32)), "arrays have different shapes for different images"),
    "not an image": (lambda t: lambda image: np.zeros(7), r"arrays have the shape \(7,\) instead of"),
    "inverted": (
        lambda t: t.Compose([t.Resize((32, 32)), t.ToTensor(), lambda x: 1 - x]),
        "white pixels do not become larger",
    ),
    "padded": (
        lambda t: t.Compose([t.Resize((32, 32)), t.Pad(8, padding_mode="reflect"), t.ToTensor()]),
        "resizes or crops images, or changes pixels, in a way that a model file cannot record",
    ),
    "gamma": (
        lambda t: t.Compose([t.Resize((32, 32)), t.ToTensor(), lambda x: x**2]),
        "in a way that a model file cannot record",
    ),
    "random": (
        lambda t: t.Compose([t.Resize((32, 32)), t.RandomCrop(24), t.ToTensor()]),
        "it is random, as transforms for training are; give the one for evaluation",
    ),
    "off-centre": (
        lambda t: t.Compose([t.Resize((40, 40)), lambda x: x.crop((0, 0, 32, 32)), t.ToTensor()]),
        "in a way that a model file cannot record",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded(name: str, transforms: ModuleType) -> None:
    build, message = REFUSED[name]
    with pytest.raises(UnmeasurableError, match=message):
        measure_preprocessing(build(transforms))
    with pytest.raises(ExportError, match=f"my:model: its preprocessing cannot be recorded .*{message}.*--resize"):
        source_preprocessing("my:model", build(transforms))


def test_the_user_may_choose_another_resize_mode(transforms: ModuleType) -> None:
    padded = composed(transforms, transforms.Resize((32, 32)), transforms.Pad(8, padding_mode="reflect"))
    how, size = source_preprocessing("my:model", padded, ["bicubic"], resize_given=True)
    assert how is not None
    assert (how.mean, how.std, how.interpolation, size) == (MEAN, STD, "bicubic", (48, 48))


def test_a_function_that_fails() -> None:
    def fails(image: Image.Image) -> Any:
        raise KeyError("boxes")

    with pytest.raises(ExportError, match=r"my:model: its preprocessing .*: it fails with KeyError: 'boxes'; choose"):
        source_preprocessing("my:model", fails)
