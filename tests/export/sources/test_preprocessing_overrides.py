"""Tests of `seewhy_export.sources.preprocessing_overrides`, and of timm's transforms, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from seewhy.contract.metadata import Metadata, ModelInfo, Preprocessing, Rectifiers
from seewhy.errors import ExportError
from seewhy.images.preprocessing import load_image, normalise
from seewhy_export.sources.preprocessing_overrides import PreprocessingOverrides, with_overrides
from seewhy_export.sources.source import Source
from seewhy_export.sources.timm_models import timm_preprocessing

OWN = Preprocessing("shorter-side", 256, "bicubic", True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR")


def made(own: Preprocessing | None, image_size: tuple[int, int] | None = None, **values: Any) -> Preprocessing | None:
    source = Source(nn.Conv2d(3, 1, 1), preprocessing=own)
    return with_overrides(source, image_size, PreprocessingOverrides(**values)).preprocessing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, OWN),
        ({"interpolation": "lanczos"}, Preprocessing("shorter-side", 256, "lanczos", True, OWN.mean, OWN.std, "BGR")),
        ({"channel_order": "RGB"}, Preprocessing("shorter-side", 256, "bicubic", True, OWN.mean, OWN.std, "RGB")),
        ({"size": 300}, Preprocessing("shorter-side", 300, "bicubic", True, OWN.mean, OWN.std, "BGR")),
        ({"crop": False}, Preprocessing("shorter-side", 256, "bicubic", False, OWN.mean, OWN.std, "BGR")),
        ({"resize": "squash"}, Preprocessing("squash", None, "bicubic", False, OWN.mean, OWN.std, "BGR")),
        (
            {"resize": "squash", "size": 256},
            Preprocessing("squash", 256, "bicubic", True, OWN.mean, OWN.std, "BGR"),
        ),
        ({"resize": "none", "crop": True}, Preprocessing("none", None, "bicubic", True, OWN.mean, OWN.std, "BGR")),
        ({"mean": (0.5,)}, Preprocessing("shorter-side", 256, "bicubic", True, (0.5,) * 3, OWN.std, "BGR")),
        (
            {"std": (0.2, 0.3, 0.4)},
            Preprocessing("shorter-side", 256, "bicubic", True, OWN.mean, (0.2, 0.3, 0.4), "BGR"),
        ),
    ],
)
def test_each_flag_replaces_its_field(values: dict[str, Any], expected: Preprocessing) -> None:
    assert made(OWN, **values) == expected


def test_a_source_without_preprocessing() -> None:
    assert made(None) is None
    assert made(None, mean=(0.5,), std=(0.25,)) == Preprocessing(
        "squash", None, "bilinear", False, (0.5,) * 3, (0.25,) * 3, "RGB"
    )
    assert made(None, mean=(0.5,), std=(0.25,), resize="shorter-side") == Preprocessing(
        "shorter-side", 224, "bilinear", True, (0.5,) * 3, (0.25,) * 3, "RGB"
    )
    with pytest.raises(ExportError, match="does not define how pixels are normalised; give --mean and --std"):
        made(None, interpolation="bicubic")
    with pytest.raises(ExportError, match="give --mean and --std"):
        made(None, mean=(0.5,))


def test_one_value_stands_for_all_channels() -> None:
    grey = with_overrides(
        Source(nn.Conv2d(1, 2, 3)), None, PreprocessingOverrides(mean=(0.5,), std=(0.25,))
    ).preprocessing
    assert grey is not None and grey.mean == (0.5,) and grey.std == (0.25,)
    four = with_overrides(
        Source(nn.Linear(1, 1), channels=4), None, PreprocessingOverrides(mean=(0.0,), std=(1.0,))
    ).preprocessing
    assert four is not None and four.mean == (0.0,) * 4
    mixed = with_overrides(
        Source(nn.Conv2d(3, 2, 3)), None, PreprocessingOverrides(mean=(0.1, 0.2), std=(1.0,))
    ).preprocessing
    assert mixed is not None and mixed.std == (1.0, 1.0)


def test_another_size_keeps_the_share_of_the_crop() -> None:
    larger = made(OWN, (448, 448))
    assert larger is not None and larger.size == 512
    said = made(OWN, (448, 448), size=480)
    assert said is not None and said.size == 480


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"mean": (123.7, 116.3, 103.5)},
            "--mean 123.7,116.3,103.5: must be between -1 and 1 because .* divide values",
        ),
        ({"std": (58.0,)}, "--std 58: must be between 1e-06 and 1"),
        ({"std": (0.0,)}, "--std 0: must be between"),
        ({"std": (float("nan"),)}, "--std nan: must be between"),
        ({"mean": (0.5, 0.5)}, "--mean 0.5,0.5: 2 values for 3 channels; give one, or one per channel"),
        ({"resize": "none", "size": 256}, "--resize-size 256 requires --resize shorter-side or --resize squash"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        made(OWN, **values)


def config(**values: Any) -> dict[str, Any]:
    return {
        "input_size": (3, 64, 64),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        **values,
    }


EXPRESSIBLE = {
    "center": config(),
    "center bilinear": config(interpolation="bilinear", crop_pct=0.95),
    "center whole": config(crop_pct=1.0),
    "squash": config(crop_mode="squash", crop_pct=1.0),
    "squash then crop": config(crop_mode="squash", crop_pct=0.9),
    "squash uneven": config(crop_mode="squash", crop_pct=1.0, input_size=(3, 80, 48), interpolation="bilinear"),
}


@pytest.mark.parametrize("name", EXPRESSIBLE)
@pytest.mark.parametrize("size", [(100, 75), (75, 101), (64, 64), (40, 300)])
def test_pixels_are_timms(name: str, size: tuple[int, int], make_image: Callable[..., Image.Image]) -> None:
    timm_data = pytest.importorskip("timm.data")
    how = EXPRESSIBLE[name]
    height, width = how["input_size"][1:]
    picture = make_image(*size)
    theirs = timm_data.create_transform(**how)(picture).numpy()
    preprocessing, _ = timm_preprocessing("timm:any", how, False)
    metadata = Metadata(
        ModelInfo("", "", ""), (height, width), 3, 2, None, preprocessing, None, "softmax", Rectifiers(), {}, {}
    )
    seen = load_image(picture, metadata)
    ours = normalise([seen], metadata)[0]
    mean, std = (np.array(how[key], np.float64).reshape(3, 1, 1) for key in ("mean", "std"))
    assert np.array_equal(np.rint((theirs * std + mean) * 255), seen.view.transpose(2, 0, 1))
    # Both divide by 255 and normalise in float32.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [
        config(crop_mode="squash", crop_pct=0.9, input_size=(3, 80, 48)),
        config(crop_mode="border", crop_pct=1.0),
        config(input_size=(3, 80, 48)),
    ],
)
def test_inexpressible_preprocessing_is_refused_unless_the_user_chooses(how: dict[str, Any]) -> None:
    size = how["input_size"][1:]
    with pytest.raises(
        ExportError, match="timm:any: its preprocessing cannot be recorded .* choose another with --resize"
    ):
        timm_preprocessing("timm:any", how, False)
    own, _ = timm_preprocessing("timm:any", how, True)
    chosen = with_overrides(
        Source(nn.Conv2d(3, 1, 1), preprocessing=own, image_size=size), None, PreprocessingOverrides("squash")
    )
    assert chosen.preprocessing is not None and chosen.preprocessing.resize == "squash"
    assert chosen.preprocessing.mean == how["mean"] and chosen.preprocessing.size is None
