"""Tests of ROAD against dense linear systems, written from the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.imputation import impute
from seewhy.metrics.road import ROAD
from support.evaluated import evaluated, measure
from support.linear_model import linear_explainer

(METRIC,) = ROAD
WEIGHTS = np.random.default_rng(4).standard_normal((2, 3, 7, 9)).astype(np.float32)
PIXELS = np.random.default_rng(3).standard_normal((3, 7, 9)).astype(np.float32)
# Rectified: 20 of 63 pixels are zero.
MAP = np.maximum(0, np.random.default_rng(5).permutation(63) - 20).reshape(7, 9).astype(np.float32)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return linear_explainer(tmp_path_factory.mktemp("linear") / "linear.onnx", 0.1 * WEIGHTS)


def imputed(pixels: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the image with each missing pixel equal to the weighted mean of its neighbours, by a dense solver."""
    height, width = missing.shape
    places = {place: i for i, place in enumerate(zip(*np.nonzero(missing), strict=True))}
    matrix, right = np.zeros((len(places),) * 2), np.zeros((len(places), len(pixels)))
    for (y, x), i in places.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (y + dy, x + dx)
                if near == (y, x) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[i, i] += weight
                if near in places:
                    matrix[i, places[near]] -= weight
                else:
                    right[i] += weight * pixels[:, near[0], near[1]]
    result = pixels.astype(np.float64)
    result[:, missing] = np.linalg.solve(matrix, right).T
    return result


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_imputation_equals_a_dense_solver(share: float) -> None:
    missing = np.random.default_rng(0).random((7, 9)) < share
    found = impute(PIXELS, missing)
    np.testing.assert_allclose(found, imputed(PIXELS, missing), atol=2e-5)
    assert (found[:, ~missing] == PIXELS[:, ~missing]).all()


def test_imputation_of_a_large_hole_and_of_large_pixels() -> None:
    pixels = 1e6 + 1e4 * np.random.default_rng(0).standard_normal((1, 25, 30)).astype(np.float32)
    missing = np.zeros((25, 30), bool)
    missing[2:, 3:] = True
    np.testing.assert_allclose(impute(pixels, missing), imputed(pixels, missing), rtol=1e-5)


@pytest.mark.parametrize("known", [(0, 0), (3, 4)])
def test_one_known_pixel_fills_the_image(known: tuple[int, int]) -> None:
    missing = np.ones((7, 9), bool)
    missing[known] = False
    found = impute(PIXELS, missing)
    np.testing.assert_allclose(
        found, np.broadcast_to(PIXELS[:, known[0], known[1], None, None], found.shape), rtol=1e-6
    )


def test_nothing_missing_and_one_colour() -> None:
    assert (impute(PIXELS, np.zeros((7, 9), bool)) == PIXELS).all()
    flat = np.full((3, 7, 9), 0.3, np.float32)
    assert (impute(flat, MAP > 9) == flat).all()


def scores(explainer: Explainer, first: list[int], steps: int) -> list[float]:
    """Return the probability of class 0 after the removal of each share of the pixels, without noise."""
    found = []
    for step in range(1, steps + 1):
        missing = np.zeros(63, bool)
        missing[first[: 63 * step // (steps + 1)]] = True
        logits = 0.1 * np.tensordot(WEIGHTS.astype(np.float64), imputed(PIXELS, missing.reshape(7, 9)), 3)
        found.append(1 / (1 + np.exp(logits[1] - logits[0])))
    return found


def test_all_orders_by_hand(linear: Explainer) -> None:
    """The ranking is the stable order of descending values, and its reverse."""
    ranking = sorted(range(63), key=lambda i: (-MAP.ravel()[i], i))
    row = evaluated(linear, PIXELS, ["backprop"], {"ours": MAP}, target=0)["ours"]
    morf, lerf = scores(linear, ranking, 4), scores(linear, ranking[::-1], 4)
    whole = row.image.scores(row.image.logits[None], "probability")[0]
    expected = {
        "combined": (np.mean(lerf) - np.mean(morf)) / 2,
        "lerf": np.mean(lerf) - whole,
        "morf": whole - np.mean(morf),
    }
    found = {name: measure(METRIC, row, order=name, steps=4, noise=0) for name in expected}
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-5), name
    curves = found["combined"].details["curves"]
    np.testing.assert_allclose(curves["morf"], morf, atol=1e-5)
    np.testing.assert_allclose(curves["lerf"], lerf, atol=1e-5)


def test_noise_has_its_deviation_and_is_shared(linear: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    images: dict[float, np.ndarray] = {}
    rows = evaluated(linear, PIXELS, ["backprop"], {"ours": MAP, "other": -MAP}, target=0)
    predict = Explainer.predict
    for noise in (0.0, 0.5):
        seen: list[np.ndarray] = []
        with monkeypatch.context() as patch:
            patch.setattr(Explainer, "predict", lambda self, x, n, seen=seen: seen.append(x) or predict(self, x, n))
            measure(METRIC, rows["ours"], noise=noise, order="morf")
            measure(METRIC, rows["other"], noise=noise, order="lerf")
        images[noise] = np.concatenate(seen)
    added = images[0.5] - images[0.0]
    assert added[8][added[8] != 0].std() == pytest.approx(0.5, rel=0.15)
    both = (added[8] != 0) & (added[17] != 0)
    assert both.sum() > 50
    np.testing.assert_allclose(added[8][both], added[17][both], atol=1e-6)


def test_constant_maps_and_missing_probabilities(linear: Explainer, tmp_path: Path) -> None:
    flat = evaluated(linear, PIXELS, ["backprop"], {"flat": 0 * MAP}, target=0)["flat"]
    with pytest.raises(NotMeasurable, match="constant"):
        measure(METRIC, flat)
    scope = Scope(linear_explainer(tmp_path / "raw.onnx", WEIGHTS, score="none").metadata)
    assert METRIC.unsuitable(flat.method, scope, {"score": "auto"}) is None
    assert "without probabilities" in str(METRIC.unsuitable(flat.method, scope, {"score": "probability"}))
