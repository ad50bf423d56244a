"""Tests of the baselines against their definitions, and of the blur against RISE's kernel as SciPy computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable
from seewhy.metrics.baselines import NAMES, baseline, baseline_logits, gaussian_kernel
from support.evaluated import evaluated
from support.linear_model import NORMALISATION, linear_explainer

PIXELS = np.random.default_rng(3).standard_normal((3, 14, 18)).astype(np.float32)
WEIGHTS = np.random.default_rng(4).standard_normal((2, 3, 14, 18)).astype(np.float32)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return linear_explainer(tmp_path_factory.mktemp("linear") / "linear.onnx", WEIGHTS)


def image_of(explainer: Explainer):
    return evaluated(explainer, PIXELS, ["backprop"])["backprop"].image


def rise_kernel() -> np.ndarray:
    """Return the kernel of RISE's evaluation: a filtered impulse of 11 x 11 pixels."""
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    return gaussian_filter(impulse, 5)


def test_the_kernel_is_that_of_rise() -> None:
    kernel = gaussian_kernel()
    np.testing.assert_allclose(np.outer(kernel, kernel), rise_kernel(), atol=1e-15)
    assert kernel.sum() == pytest.approx(1)


def test_the_blur_is_that_of_rise(linear: Explainer) -> None:
    """RISE calls conv2d with padding, which adds zeros around the image."""
    expected = [convolve2d(channel, rise_kernel(), mode="same") for channel in PIXELS.astype(np.float64)]
    np.testing.assert_allclose(baseline(image_of(linear), "blur"), expected, atol=1e-6)


def test_colours(linear: Explainer) -> None:
    image = image_of(linear)
    mean, std = (np.array(values)[:, None, None] for values in (NORMALISATION.mean, NORMALISATION.std))
    expected = {
        "zero": np.zeros((3, 1, 1)),
        "black": -mean / std,
        "grey": (0.5 - mean) / std,
        "white": (1 - mean) / std,
        "mean": PIXELS.astype(np.float64).mean(axis=(1, 2))[:, None, None],
    }
    for name, colour in expected.items():
        found = baseline(image, name)
        assert found.dtype == np.float32
        assert found.shape == PIXELS.shape
        np.testing.assert_allclose(found, np.broadcast_to(colour, PIXELS.shape), rtol=1e-5, err_msg=name)
    assert set(NAMES) == {*expected, "blur"}


def test_a_baseline_and_its_pass_are_shared(linear: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(linear)
    logits = baseline_logits(image, "blur")
    monkeypatch.setattr(Explainer, "predict", None)
    assert baseline_logits(image, "blur") is logits
    assert baseline(image, "blur") is baseline(image, "blur")
    expected = np.tensordot(WEIGHTS, baseline(image, "blur"), 3)
    np.testing.assert_allclose(logits[0], expected, rtol=1e-4, atol=1e-4)


def test_colours_need_the_normalisation(tmp_path: Path) -> None:
    image = image_of(linear_explainer(tmp_path / "raw.onnx", WEIGHTS, normalised=False))
    assert not baseline(image, "zero").any()
    for name in ("black", "grey", "white"):
        with pytest.raises(NotMeasurable, match="does not record how pixels are normalised"):
            baseline(image, name)
