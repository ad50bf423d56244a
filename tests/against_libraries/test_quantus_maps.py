"""Tests of metrics of single maps against Quantus, and of raw results as its `a_batch`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import seewhy
from seewhy import Explainer
from seewhy.contract.metadata import Preprocessing
from seewhy.metrics.complexity import COMPLEXITY
from seewhy.metrics.metric import Metric
from seewhy.metrics.pointing import POINTING
from support.command_line import run
from support.evaluated import evaluated, measure
from support.exporting.networks import live_weights, stacked
from support.quantus_library import import_quantus

quantus = import_quantus()

SPARSENESS, ENTROPY, _ = COMPLEXITY
_, ENERGY = POINTING
QUIET = {"disable_warnings": True, "display_progressbar": False, "return_aggregate": False}
METHODS = ("gradcam", "layercam", "backprop", "inputxgradient", "integrated-gradients")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return live_weights(stacked(nn.ReLU, nn.AvgPool2d(2)), 0).eval()


@pytest.fixture
def explainer(exported: Callable[..., Path], network: nn.Module) -> Explainer:
    options = {"image_size": (16, 16), "layer": "second_act", "preprocessing": Preprocessing()}
    return Explainer(exported("quantus-maps", network, **options), threads=1)


def batch() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (SPARSENESS, lambda: quantus.Sparseness(normalise=False, **QUIET)),
        (ENTROPY, lambda: quantus.Complexity(normalise=False, **QUIET)),
        (ENERGY, lambda: quantus.RelevanceMassAccuracy(abs=False, normalise=False, **QUIET)),
    ],
    ids=["sparseness", "entropy", "energy-pointing"],
)
@pytest.mark.parametrize("method", ["gradcam", "backprop"])
def test_metrics_of_a_map(
    explainer: Explainer, network: nn.Module, ours: Metric, make: Callable[[], Any], method: str
) -> None:
    """The maps have no negative values, so that the positive part and the absolute value are the map itself."""
    images = batch()
    regions = np.zeros((4, 1, 16, 16), np.bool_)
    regions[:, :, 3:9, 5:14] = True
    each = [evaluated(explainer, one, [method], regions=regions[0, 0])[method] for one in images]
    maps = np.stack([one.map for one in each]).astype(np.float64)[:, None]
    assert maps.min() >= 0
    # Quantus adds 1e-7 to the values for its Gini index, and 1e-12 in its logarithm.
    maps /= maps.max(axis=(1, 2, 3), keepdims=True)
    labels = np.array([one.image.target for one in each])
    theirs = make()(network, images, labels, maps, s_batch=regions, channel_first=True)
    np.testing.assert_allclose([measure(ours, one).value for one in each], theirs, rtol=1e-5)


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("method", METHODS)
def test_quantus_accepts_raw_results(explainer: Explainer, network: nn.Module, tmp_path: Path, method: str) -> None:
    """Measure what `seewhy explain --save-raw` writes, with a metric of maps and one that runs the model."""
    random = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for name in "abc":
        image = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(tmp_path / f"images/{name}.png")
    out = tmp_path / "out"
    result = run("explain", explainer.path, tmp_path / "images", "-o", out, "--method", method, "--save-raw")
    assert result.exit_code == 0, result.output
    arrays = [read(out / f"{name}.{method}.npz") for name in "abc"]
    attributions, targets = (np.stack([one[key] for one in arrays]) for key in ("attributions", "target"))
    pixels = explainer.preprocess([tmp_path / f"images/{name}.png" for name in "abc"])
    expected = {"gradcam": (3, 16, 16), "layercam": (3, 16, 16)}.get(method, (3, 3, 16, 16))
    assert attributions.shape == expected and attributions.dtype == np.float32
    arguments = {"x_batch": pixels, "y_batch": targets, "a_batch": attributions, "channel_first": True}
    sparseness = quantus.Sparseness(**QUIET)(network, **arguments)
    flipping = quantus.PixelFlipping(features_in_step=16, **QUIET)(network, softmax=True, **arguments)
    assert len(sparseness) == 3 and all(0 < one < 1 for one in sparseness)
    assert np.shape(flipping)[0] == 3 and np.isfinite(flipping).all()
    # Quantus and the model file predict the same, so the attributions are those of its images.
    first = seewhy.Explainer(explainer.path, threads=1).predict(pixels).probabilities
    assert first is not None and targets.tolist() == first.argmax(axis=1).tolist()
