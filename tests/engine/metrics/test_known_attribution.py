"""Tests that metrics of faithfulness tell a true map from a random and an inverted one.

The network is linear, so the contribution of each pixel is known: its value times its weight. Images have an object,
whose pixels support the class, before a background that speaks for or against it.
"""

from __future__ import annotations

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import HIGHER
from seewhy.metrics.built_in import BUILT_IN
from support.evaluated import evaluated, measure
from support.linear_model import linear_explainer

SIZE, COUNT = (24, 24), 16
METRICS = {one.name: one for one in BUILT_IN if one.group == "faithfulness"}
# Fewer shares of pixels than by default, to save time.
OPTIONS = {"road": {"steps": 3}}
NOT_RANKED = {"completeness", "infidelity"}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    weights = np.stack([np.full((1, *SIZE), 0.05), np.zeros((1, *SIZE))]).astype(np.float32)
    return linear_explainer(tmp_path_factory.mktemp("network") / "network.onnx", weights)


def image(seed: int) -> np.ndarray:
    """Return an image with a bright 8 x 8 object before a background that speaks against the class.

    Both together give logits of either sign. A random mask takes any logit closer to 0, so it raises the probability of
    some images, while an inverted mask raises none.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.normal(-0.16, 0.3, (1, *SIZE))
    y, x = rng.integers(0, 16, 2)
    pixels[:, y : y + 8, x : x + 8] = rng.normal(1.0 + 0.2 * (seed % 3), 0.2, (1, 8, 8))
    return pixels.astype(np.float32)


def maps(pixels: np.ndarray, signed: bool, seed: int) -> dict[str, np.ndarray]:
    """Return the true map, a random one and the inverted one; unsigned maps are rectified."""
    true = 0.05 * pixels[0] if signed else np.maximum(0, 0.05 * pixels[0])
    return {
        "true": true,
        "random": np.random.default_rng(seed).permutation(true.ravel()).reshape(SIZE),
        "inverted": -true if signed else true.max() - true,
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Return a bootstrap interval of 95 % for the mean."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", sorted(METRICS.keys() - NOT_RANKED))
def test_true_beats_random_beats_inverted(network: Explainer, name: str, signed: bool) -> None:
    metric = METRICS[name]
    found: dict[str, list[float]] = {"true": [], "random": [], "inverted": []}
    for seed in range(COUNT):
        pixels = image(seed)
        given = {f"{key} map": value for key, value in maps(pixels, signed, seed).items()}
        rows = evaluated(network, pixels, ["backprop"], given, target=0, name=f"image {seed}")
        for key in found:
            found[key].append(measure(metric, rows[f"{key} map"], **OPTIONS.get(name, {})).value)
    sign = 1 if metric.direction == HIGHER else -1
    true, random, inverted = (interval([sign * value for value in found[key]]) for key in found)
    assert true[0] > random[1]
    assert random[0] > inverted[1]


def test_all_metrics_of_faithfulness_are_there() -> None:
    expected = "deletion insertion road average-drop increase average-gain infidelity completeness"
    assert set(expected.split()) == METRICS.keys()
