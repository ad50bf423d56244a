"""Tests of ranges and second moments, against literal loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy.quantization.backbone import read_backbone
from seewhy.quantization.calibration import Range, measure_ranges, second_moments
from seewhy.runtime.model_file import ModelFile
from support.quantized_tiny import bright_pixels
from support.tiny_model import Tiny


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-2.0, -1.0), (0.5, 1.0), (0.0, 0.0)])
def test_a_range_represents_zero_and_its_ends(low: float, high: float) -> None:
    one = Range.of(low, high)
    values = np.array([0, low, high], np.float32)
    rounded = one.rounded(values)
    assert rounded[0] == 0
    # Half a step, because the zero point is rounded, too.
    assert np.abs(rounded - values).max() <= one.scale


def test_ranges_cover_what_the_backbone_computes(tmp_path: Path) -> None:
    tiny = Tiny()
    backbone = read_backbone(ModelFile.read(tiny.save(tmp_path / "tiny.onnx")))
    pixels = bright_pixels(tiny)
    ranges = measure_ranges(backbone, ["images", "a1"], pixels, 1)
    weights = tiny.weights()
    padded = np.pad(pixels.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    a1 = np.einsum("nchwij,ocij->nohw", windows, weights["conv1.weight"]) + weights["conv1.bias"][:, None, None]
    for name, largest in (("images", pixels.max()), ("a1", a1.max())):
        top = float(ranges[name].scale) * (255 - int(ranges[name].zero_point))
        # Up to 70 % of the range may be given up for finer steps.
        assert 0.3 * largest <= top <= largest * (1 + 1e-5)
        assert ranges[name].zero_point == 0


def test_no_wider_or_narrower_range_has_a_clearly_smaller_error(tmp_path: Path) -> None:
    tiny = Tiny()
    backbone = read_backbone(ModelFile.read(tiny.save(tmp_path / "tiny.onnx")))
    pixels = np.random.default_rng(0).standard_t(4, (400, 3, *tiny.size)).astype(np.float32)
    found = measure_ranges(backbone, ["images"], pixels, 1)["images"]

    def error(one: Range) -> float:
        return float(np.square(one.rounded(pixels) - pixels).mean())

    # Measured on all values here, and on a sample there.
    others = [Range.of(pixels.min() * share, pixels.max() * share) for share in np.linspace(0.3, 1, 15)]
    assert error(found) <= 1.1 * min(map(error, others))
    assert float(found.scale) * 255 < 0.99 * (pixels.max() - pixels.min())


@pytest.mark.parametrize("biased", [True, False])
def test_moments_are_those_of_all_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, biased: bool) -> None:
    tiny = Tiny()
    backbone = read_backbone(ModelFile.read(tiny.save(tmp_path / "tiny.onnx")))
    pixels = bright_pixels(tiny, 3)
    height, width = tiny.size
    # Exactly all positions of the three images, instead of a sample.
    monkeypatch.setattr("seewhy.quantization.calibration._FEWEST_ROWS", 3 * height * width)
    if not biased:
        del backbone.layers[0].node.input[2]
    layer, moments = next(iter(second_moments(backbone, backbone.layers[:1], pixels, 1)))
    assert layer.name == "c1"
    padded = np.pad(pixels.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = [image[:, y : y + 3, x : x + 3].ravel() for image in padded for y in range(height) for x in range(width)]
    mean = sum(rows) / len(rows) * biased
    covariance = sum(np.outer(row - mean, row - mean) for row in rows) / len(rows)
    # The products are summed in float32: 576 terms, whose rounding errors add up like random steps.
    scale = np.abs(covariance).max() + np.abs(mean).max() ** 2
    np.testing.assert_allclose(moments.mean[0], mean, atol=1e-6 * scale)
    np.testing.assert_allclose(moments.covariance[0], covariance, atol=24 * 2.0**-23 * scale)
