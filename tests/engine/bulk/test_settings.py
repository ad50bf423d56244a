"""Tests of `seewhy.bulk.settings`: values that are accepted, and values that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, explain_folder
from seewhy.bulk.settings import Settings

MakeImage = Callable[..., Image.Image]


def test_settings_accept_numpy_numbers(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    make_image().save(tmp_path / "a.png")
    chosen: Any = {
        "top": np.uint64(2),
        "alpha": np.float32(0.5),
        "batch_size": np.uint64(2),
        "raw": np.bool_(True),
        "format": "jpg",
        "quality": np.int16(80),
    }
    assert explain_folder(explainer, tmp_path / "a.png", tmp_path / "out", Settings(**chosen)).done == 1
    plain: Any = {"top": 2, "alpha": 0.5, "raw": True, "format": "jpg", "quality": 80}
    assert explain_folder(explainer, tmp_path / "a.png", tmp_path / "out", Settings(**plain)).already_recorded == 1
    assert len(explainer.explain(tmp_path / "a.png", top=np.uint64(2)).targets[0]) == 2  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["raw", "full_size", "fast_decode"])
@pytest.mark.parametrize("value", [2.0, "yes", None, float("nan")])
def test_switches_are_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be True or False, not"):
        Settings(**{name: value})


@pytest.mark.parametrize("colormap", [[], np.zeros(3), 7, None])
def test_a_colormap_must_be_a_name(colormap: Any, explainer: Explainer, make_image: MakeImage) -> None:
    with pytest.raises(ArgumentError, match="Unknown colormap"):
        explainer.explain(make_image()).overlays(colormap)
