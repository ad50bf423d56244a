"""Tests of deletion and insertion against curves computed by hand on a linear model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.deletion import DELETION
from seewhy.metrics.scores import resolve_conventions, resolve_score
from support.evaluated import evaluated, measure
from support.linear_model import linear_explainer

DELETE, INSERT = DELETION
SIZE = (1, 2, 4)
# Contributions of the pixels to the logit of class 0, if all pixels are 1: the map is their order.
WEIGHTS = np.array([[[[3.0, -1, 0, 2], [1, 0.5, -2, 0]]], [[[0.0] * 4] * 2]], np.float32)
MAP = np.array([[5.0, 1, 2, 4], [3, 2, 0, 2]], np.float32)
# Ties, three of them, stay in row-major order.
ORDER = [0, 3, 4, 2, 5, 7, 1, 6]
ONES = np.ones(SIZE, np.float32)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return linear_explainer(tmp_path_factory.mktemp("linear") / "linear.onnx", WEIGHTS, score="sigmoid")


def explanation(explainer: Explainer, values: np.ndarray = MAP, pixels: np.ndarray = ONES):
    return evaluated(explainer, pixels, ["backprop"], {"ours": values}, target=0)["ours"]


def trapezoid(curve: list[float], shares: list[float]) -> float:
    pieces = range(len(curve) - 1)
    return sum((shares[i + 1] - shares[i]) * (curve[i] + curve[i + 1]) / 2 for i in pieces)


def logits_by_hand(edges: list[int]) -> list[float]:
    """Return the logit when the first pixels of the order are 0 instead of 1."""
    weights = WEIGHTS[0].ravel().astype(np.float64)
    return [float(weights.sum() - weights[ORDER[:count]].sum()) for count in edges]


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_deletion_by_hand(linear: Explainer, steps: int) -> None:
    edges = [8 * i // steps for i in range(steps + 1)]
    found = measure(DELETE, explanation(linear), steps=steps, score="logit")
    np.testing.assert_allclose(found.curve, logits_by_hand(edges), atol=1e-6)
    assert found.value == pytest.approx(trapezoid(found.curve, [edge / 8 for edge in edges]))


def test_uneven_steps_use_all_pixels(linear: Explainer) -> None:
    """Three steps of eight pixels change 2, 3 and 3 of them; the area weighs each by its share."""
    found = measure(DELETE, explanation(linear), steps=3, score="logit")
    expected = logits_by_hand([0, 2, 5, 8])
    np.testing.assert_allclose(found.curve, expected, atol=1e-6)
    assert found.value == pytest.approx(trapezoid(expected, [0, 2 / 8, 5 / 8, 1]), abs=1e-6)


def test_more_steps_than_pixels(linear: Explainer) -> None:
    found = measure(DELETE, explanation(linear), steps=50, score="logit")
    every = logits_by_hand(list(range(9)))
    assert len(found.curve) == 51
    assert found.value == pytest.approx(trapezoid(every, [i / 8 for i in range(9)]), abs=1e-6)


def test_insertion_is_deletion_from_the_other_end(linear: Explainer) -> None:
    """On a linear model, what one has removed the other has put back: their logits add up to that of the image."""
    deleted = measure(DELETE, explanation(linear), steps=5, score="logit")
    inserted = measure(INSERT, explanation(linear), steps=5, score="logit", baseline="zero")
    np.testing.assert_allclose(np.add(deleted.curve, inserted.curve), WEIGHTS[0].sum(), atol=1e-6)


def test_probabilities_and_the_default_steps(linear: Explainer) -> None:
    found = measure(DELETE, explanation(linear))
    assert len(found.curve) == 21
    logits = logits_by_hand([8 * i // 20 for i in range(21)])
    np.testing.assert_allclose(found.curve, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-6)
    assert 0 < found.value < 1


def test_curves_end_at_the_image_and_at_the_baseline(linear: Explainer) -> None:
    pixels = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    whole = np.tensordot(WEIGHTS[0], pixels, 3)
    found = measure(DELETE, explanation(linear, pixels=pixels), baseline="mean", score="logit", steps=3)
    np.testing.assert_allclose(found.curve[0], whole, rtol=1e-5)
    np.testing.assert_allclose(found.curve[-1], WEIGHTS[0].sum() * pixels.mean(), rtol=1e-4)
    found = measure(INSERT, explanation(linear, pixels=pixels), baseline="mean", score="logit", steps=3)
    np.testing.assert_allclose(found.curve[0], WEIGHTS[0].sum() * pixels.mean(), rtol=1e-4)
    np.testing.assert_allclose(found.curve[-1], whole, rtol=1e-5)


def test_passes_are_few_and_in_batches(linear: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 steps take 49 passes for each map, and one for the baseline, which both maps share."""
    rows = evaluated(linear, ONES, ["backprop"], {"first": MAP, "second": -MAP}, target=0)
    counts: list[int] = []
    predict = Explainer.predict
    monkeypatch.setattr(Explainer, "predict", lambda self, x, n: counts.append(len(x)) or predict(self, x, n))
    for name in ("first", "second"):
        measure(DELETE, rows[name], steps=50)
    assert sorted(counts) == [1, 17, 17, 32, 32]


def test_constant_and_broken_maps_are_not_measurable(linear: Explainer) -> None:
    for metric in DELETION:
        with pytest.raises(NotMeasurable, match="constant"):
            measure(metric, explanation(linear, np.full((2, 4), 3.0, np.float32)))
        for bad in (np.nan, np.inf):
            with pytest.raises(NotMeasurable, match="NaN or infinity"):
                measure(metric, explanation(linear, np.where(MAP > 4, np.float32(bad), MAP)))


def test_a_model_without_probabilities_is_measured_by_logits(tmp_path: Path) -> None:
    explainer = linear_explainer(tmp_path / "raw.onnx", WEIGHTS, score="none")
    rows = explanation(explainer)
    auto, logit = (measure(DELETE, rows, score=score, steps=4) for score in ("auto", "logit"))
    assert auto == logit
    options = {"score": "probability", "steps": 4, "baseline": "zero"}
    scope = Scope(explainer.metadata)
    for metric in DELETION:
        assert metric.unsuitable(rows.method, scope, options) == "the model gives logits without probabilities"
        assert metric.unsuitable(rows.method, scope, {**options, "score": "auto"}) is None
    assert resolve_score("auto", explainer.metadata) == "logit"
    assert resolve_conventions({"score": "auto", "steps": 4}, explainer.metadata) == {"score": "logit", "steps": 4}


def test_auto_is_the_probability_of_a_model_that_has_one(linear: Explainer) -> None:
    assert resolve_score("auto", linear.metadata) == "probability"
    assert resolve_score("logit", linear.metadata) == "logit"
    assert resolve_conventions({"share": 0.05}, linear.metadata) == {"share": 0.05}
