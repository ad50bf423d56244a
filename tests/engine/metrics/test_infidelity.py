"""Tests of infidelity against expectations that are known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.infidelity import INFIDELITY, perturbations
from support.evaluated import evaluated, measure
from support.linear_model import linear_explainer

(METRIC,) = INFIDELITY
WEIGHTS = np.random.default_rng(4).standard_normal((2, 3, 6, 8)).astype(np.float32)
PIXELS = np.random.default_rng(3).standard_normal((3, 6, 8)).astype(np.float32)
METHODS = ["backprop", "inputxgradient", "integrated-gradients"]


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return linear_explainer(tmp_path_factory.mktemp("linear") / "linear.onnx", WEIGHTS)


@pytest.mark.parametrize("perturbation", ["noise", "square"])
def test_gradients_of_a_linear_model_are_faithful(linear: Explainer, perturbation: str) -> None:
    """Each predicts every change: the gradient as it is, the others divided by the image."""
    rows = evaluated(linear, PIXELS, METHODS, target=0)
    for name in METHODS:
        for normalize in ("yes", "no"):
            found = measure(METRIC, rows[name], perturbation=perturbation, normalize=normalize).value
            assert found < 1e-6, name


def test_noise_by_hand(linear: Explainer) -> None:
    """For noise of deviation s, the mean of (I . (a - w))^2 is s^2 |a - w|^2."""
    wrong = 3 * WEIGHTS[0] + np.float32(0.5)
    row = slopes(linear, wrong)
    assert row.attribution is wrong
    found = measure(METRIC, row, samples=4000, scale=0.1).value
    expected = 0.01 * ((wrong - WEIGHTS[0]).astype(np.float64) ** 2).sum()
    assert found == pytest.approx(expected, rel=0.1)


def test_normalised_infidelity_ignores_the_unit(linear: Explainer) -> None:
    assert measure(METRIC, slopes(linear, 3 * WEIGHTS[0]), normalize="yes").value < 1e-6
    assert measure(METRIC, slopes(linear, 3 * WEIGHTS[0])).value > 0.1
    with pytest.raises(NotMeasurable, match="predicts no change"):
        measure(METRIC, slopes(linear, 0 * WEIGHTS[0]), normalize="yes")


def test_an_attribution_of_zero_leaves_the_change_of_the_logit(linear: Explainer) -> None:
    row = slopes(linear, 0 * WEIGHTS[0])
    options = {"perturbation": "square", "samples": 7, "scale": 0.5, "normalize": "no"}
    drawn = np.concatenate(list(perturbations(row.image, options))).astype(np.float64)
    assert measure(METRIC, row, **options).value == pytest.approx(
        float((np.tensordot(drawn, WEIGHTS[0], 3) ** 2).mean()), rel=1e-4
    )


def test_squares_are_set_to_zero(linear: Explainer) -> None:
    image = evaluated(linear, PIXELS, METHODS, target=0)["backprop"].image
    drawn = np.concatenate(list(perturbations(image, {"perturbation": "square", "samples": 60, "scale": 0.5})))
    left = PIXELS - drawn
    places = set()
    for one in left:
        empty = (one == 0).all(axis=0)
        assert (one[:, ~empty] == PIXELS[:, ~empty]).all()
        rows, columns = np.nonzero(empty)
        assert empty.sum() == 9
        assert np.ptp(rows) == np.ptp(columns) == 2
        places.add((rows.min(), columns.min()))
    # 4 x 6 places: each is drawn with probability 1 - (23/24)^60.
    assert len(places) > 15


def test_pixels_without_distance_to_the_baseline_count_as_zero(linear: Explainer) -> None:
    pixels = PIXELS.copy()
    pixels[:, :2] = 0
    row = evaluated(linear, pixels, ["inputxgradient"], target=0)["inputxgradient"]
    found = measure(METRIC, row, samples=4000, scale=0.1).value
    assert found == pytest.approx(0.01 * float((WEIGHTS[0, :, :2].astype(np.float64) ** 2).sum()), rel=0.1)


def test_perturbations_and_their_passes_are_shared(linear: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = evaluated(linear, PIXELS, METHODS, target=0)
    counts: list[int] = []
    predict = Explainer.predict
    monkeypatch.setattr(Explainer, "predict", lambda self, x, n: counts.append(len(x)) or predict(self, x, n))
    values = {name: measure(METRIC, rows[name], perturbation="noise").value for name in METHODS}
    assert counts == [32, 18]
    assert values == {name: measure(METRIC, rows[name], perturbation="noise").value for name in METHODS}


def test_maps_are_unsuitable(linear: Explainer) -> None:
    rows = evaluated(linear, PIXELS, METHODS, {"map": PIXELS[0]}, target=0)
    reasons = {name: METRIC.unsuitable(row.method, Scope(linear.metadata), {}) for name, row in rows.items()}
    assert {name for name, reason in reasons.items() if reason is None} == set(METHODS)


def slopes(explainer: Explainer, attribution: np.ndarray):
    """Return an explanation whose attributions are slopes, as those of backprop are."""
    rows = evaluated(explainer, PIXELS, ["backprop"], {"ours": attribution}, target=0)
    method = replace(rows["ours"].method, request=rows["backprop"].method.request)
    return replace(rows["ours"], method=method)
