"""Tests of average drop, increase and average gain against probabilities computed by hand on a linear model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.masked_image import MASKED_IMAGE
from support.evaluated import evaluated, measure
from support.linear_model import linear_explainer

DROP, INCREASE, GAIN = MASKED_IMAGE
WEIGHTS = np.array([[[[1.0, -3.0], [0.5, 2.0]]], [[[0.0, 0.0], [0.0, 0.0]]]], np.float32)
ONES = np.ones((1, 2, 2), np.float32)
# The map scaled to [0, 1] is 1, 0, 0.5, 0.25.
MAPS = {"best": np.array([[7.0, 3], [5, 4]], np.float32), "worst": np.array([[3.0, 7], [5, 6]], np.float32)}


def logistic(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


WHOLE = logistic(0.5)
MASKED = {"best": logistic(1 + 0.25 + 0.5), "worst": logistic(-3 + 0.25 + 0.75 * 2)}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(linear_explainer(tmp_path_factory.mktemp("linear") / "linear.onnx", WEIGHTS))


def rows_of(explainer: Explainer):
    return evaluated(explainer, ONES, ["backprop"], MAPS, target=0)


@pytest.mark.parametrize("name", MAPS)
def test_by_hand(rows, name: str) -> None:
    p, q = WHOLE, MASKED[name]
    found = [measure(metric, rows[name]).value for metric in MASKED_IMAGE]
    np.testing.assert_allclose(found, [max(0, p - q) / p, q > p, max(0, q - p) / (1 - p)], rtol=1e-6)
    found = [measure(metric, rows[name], relative="no").value for metric in (DROP, GAIN)]
    np.testing.assert_allclose(found, [max(0, p - q), max(0, q - p)], rtol=1e-6)


def test_the_heatmap_moves_pixels_towards_the_baseline(tmp_path: Path) -> None:
    """The mean colour of an image of ones is the image itself, so that nothing changes."""
    rows = rows_of(linear_explainer(tmp_path / "linear.onnx", WEIGHTS))
    assert [measure(metric, rows["worst"], baseline="mean").value for metric in MASKED_IMAGE] == [0, 0, 0]
    # Black is -mean / std of the file, -2.5 in its only channel.
    masked = -2.5 + np.array([0, 1, 0.5, 0.75]) * 3.5
    q = logistic(float(masked @ WEIGHTS[0].ravel()))
    found = measure(DROP, rows["worst"], baseline="black").value
    assert found == pytest.approx(max(0, WHOLE - q) / WHOLE, rel=1e-5)


def test_one_pass_serves_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(linear_explainer(tmp_path / "linear.onnx", WEIGHTS))
    counts: list[int] = []
    predict = Explainer.predict
    monkeypatch.setattr(Explainer, "predict", lambda self, x, n: counts.append(len(x)) or predict(self, x, n))
    for name in MAPS:
        for metric in MASKED_IMAGE:
            measure(metric, rows[name])
    assert counts == [1, 1]


def test_constant_maps_and_certain_models_are_not_measurable(tmp_path: Path, rows) -> None:
    flat = evaluated(rows["best"].image.explainer, ONES, ["backprop"], {"flat": ONES[0]}, target=0)["flat"]
    for metric in MASKED_IMAGE:
        with pytest.raises(NotMeasurable, match="constant"):
            measure(metric, flat)
    sure = rows_of(linear_explainer(tmp_path / "sure.onnx", WEIGHTS, np.array([100.0, 0])))["best"]
    with pytest.raises(NotMeasurable, match="is 1, and cannot rise"):
        measure(GAIN, sure)
    assert measure(GAIN, sure, relative="no").value == 0
    never = rows_of(linear_explainer(tmp_path / "never.onnx", WEIGHTS, np.array([-2000.0, 0])))["best"]
    with pytest.raises(NotMeasurable, match="is 0, and cannot fall"):
        measure(DROP, never)


def test_a_probability_close_to_1_keeps_its_distance(tmp_path: Path) -> None:
    """In float32, 1 - p would be 0 here."""
    rows = rows_of(linear_explainer(tmp_path / "linear.onnx", WEIGHTS, np.array([25.0, 0])))
    rest, masked = (float(np.exp(-x) / (1 + np.exp(-x))) for x in (25.5, 26.75))
    assert measure(GAIN, rows["best"]).value == pytest.approx((rest - masked) / rest, rel=1e-4)


def test_logits_are_refused(tmp_path: Path) -> None:
    known = Scope(linear_explainer(tmp_path / "softmax.onnx", WEIGHTS).metadata)
    rows = rows_of(linear_explainer(tmp_path / "raw.onnx", WEIGHTS, score="none"))
    scope = Scope(rows["best"].image.metadata)
    for metric in MASKED_IMAGE:
        reason = str(metric.unsuitable(rows["best"].method, scope, {}))
        assert "without probabilities; a share of a logit has no meaning" in reason
        assert metric.unsuitable(rows["best"].method, known, {}) is None
