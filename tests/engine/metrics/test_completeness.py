"""Tests of completeness against sums computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.completeness import COMPLETENESS
from support.evaluated import evaluated, measure
from support.linear_model import NORMALISATION, linear_explainer
from support.tiny_model_files import pixels

(METRIC,) = COMPLETENESS
WEIGHTS = np.random.default_rng(4).standard_normal((2, 3, 4, 5)).astype(np.float32)
BIAS = np.array([0.7, -0.2], np.float32)
PIXELS = np.random.default_rng(3).standard_normal((3, 4, 5)).astype(np.float32)
METHODS = ["backprop", "inputxgradient", "integrated-gradients"]


def test_a_linear_model_is_complete(tmp_path: Path) -> None:
    """The bias is in both logits, so input x gradient adds up to their difference."""
    rows = evaluated(linear_explainer(tmp_path / "linear.onnx", WEIGHTS, BIAS), PIXELS, METHODS, target=1)
    for name in METHODS[1:]:
        assert measure(METRIC, rows[name]).value < 1e-5
    black = -np.array(NORMALISATION.mean) / np.array(NORMALISATION.std)
    at_black = float(WEIGHTS[1].sum(axis=(1, 2)) @ black)
    assert measure(METRIC, rows["inputxgradient"], baseline="black").value == pytest.approx(abs(at_black), rel=1e-4)


def test_a_squared_model_tells_the_two_apart(tmp_path: Path) -> None:
    """The logit is w x^2, and its gradient 2 w x: input x gradient is twice the logit, and the integral is exact."""
    rows = evaluated(linear_explainer(tmp_path / "squared.onnx", WEIGHTS, squared=True), PIXELS, METHODS, target=0)
    logit = float((WEIGHTS[0].astype(np.float64) * PIXELS**2).sum())
    assert measure(METRIC, rows["inputxgradient"]).value == pytest.approx(abs(logit), rel=1e-4)
    assert measure(METRIC, rows["integrated-gradients"]).value < 1e-4


def test_integrated_gradients_keep_their_own_baseline(explainer: Explainer) -> None:
    """The error is the one that integrated gradients report themselves, whatever the metric's baseline is."""
    image, name = pixels(1), "integrated-gradients"
    for own in ("zero", "white"):
        options = {name: {"baseline": own, "steps": 3}}
        found = explainer.explain(image, name, target=2, options=options)
        row = evaluated(explainer, image[0], [name], target=2, method_options=options)[name]
        assert found.completeness is not None
        assert found.completeness[0] > 1e-3
        for other in ("zero", "black"):
            measured = measure(METRIC, row, baseline=other).value
            assert measured == pytest.approx(float(found.completeness[0]), rel=1e-3)


def test_a_baseline_of_its_own_that_is_unknown(tmp_path: Path) -> None:
    row = evaluated(linear_explainer(tmp_path / "linear.onnx", WEIGHTS), PIXELS, METHODS)["inputxgradient"]
    assert row.method.request is not None
    request = replace(row.method.request, options={"baseline": 0.25})
    row = replace(row, method=replace(row.method, request=request))
    with pytest.raises(NotMeasurable, match="the method's baseline is 0.25, which is none of zero, black"):
        measure(METRIC, row)


def test_arrays_of_other_tools_are_measured(tmp_path: Path) -> None:
    explainer = linear_explainer(tmp_path / "linear.onnx", WEIGHTS)
    maps = {"theirs": WEIGHTS[0] * PIXELS + 0.1, "flat": PIXELS[0]}
    rows = evaluated(explainer, PIXELS, ["backprop"], maps, target=0)
    assert measure(METRIC, rows["theirs"]).value == pytest.approx(6, rel=1e-4)
    assert "no unit" in str(unsuitable(rows["flat"]))
    assert unsuitable(rows["theirs"]) is None


def test_maps_and_sensitivities_are_unsuitable(explainer: Explainer) -> None:
    rows = evaluated(explainer, pixels(1)[0], ["gradcam", *METHODS], target=2)
    reasons = {name: unsuitable(row) for name, row in rows.items()}
    assert reasons == {
        **dict.fromkeys(
            ["gradcam", "random", "centre"],
            "the maps have no unit, so they cannot be compared with a change of the score",
        ),
        "backprop": "the attributions are sensitivities, which do not add up to a score",
        "inputxgradient": None,
        "integrated-gradients": None,
    }


def unsuitable(row) -> str | None:
    return METRIC.unsuitable(row.method, Scope(row.image.metadata), {})
