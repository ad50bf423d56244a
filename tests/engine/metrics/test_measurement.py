"""Tests of `seewhy.metrics.measurement`: results of metrics that are accepted, and one line for those that are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, Measured, Metric, MetricError, NonFiniteError, NotMeasurable
from seewhy.metrics.base import EvaluatedMethod, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.measurement import measure_metric, unsuitable_reason
from seewhy.metrics.metric import MetricRequest
from seewhy.metrics.registry import resolve_metrics
from support.evaluated import evaluated
from support.tiny_model_files import pixels


@pytest.fixture(scope="module")
def explanation(explainer: Explainer) -> EvaluatedExplanation:
    half = np.zeros((12, 16), np.float32)
    half[:6] = 1
    return evaluated(explainer, pixels(1)[0], maps={"half": half})["half"]


def measured(result: Any, explanation: EvaluatedExplanation, **options: Any) -> Measured:
    """Measure by a metric that returns `result`, or what `result` returns if it is a function."""
    call = result if callable(result) else lambda explanation, options: result
    return measure_metric(MetricRequest(Metric("mine", "Mine", "other", "higher", call), options), explanation)


def test_a_built_in_metric(explanation: EvaluatedExplanation) -> None:
    """Half of the pixels share the map, so the top 5 % (10 of 192 pixels) hold 10 / 96 of it."""
    (request,) = resolve_metrics("top-energy")
    assert measure_metric(request, explanation).value == pytest.approx(10 / 96)
    (request,) = resolve_metrics("top-energy", {"top-energy": {"share": 0.25}})
    assert measure_metric(request, explanation).value == pytest.approx(0.5)


def test_the_metric_gets_the_explanation_and_its_options(explanation: EvaluatedExplanation) -> None:
    found = measured(lambda e, o: float(e.map.sum()) * o["factor"], explanation, factor=0.5)
    assert found == Measured(48.0)


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.float64(0.25), np.array(0.25)[()], Measured(0.25)])
def test_accepted_values(value: Any, explanation: EvaluatedExplanation) -> None:
    found = measured(value, explanation)
    assert found == Measured(0.25) and type(found.value) is float
    assert type(measured(np.int64(3), explanation).value) is float


def test_curves_and_details_become_plain(explanation: EvaluatedExplanation) -> None:
    given = Measured(np.float32(1), np.array([0.5, 1], np.float32), {"steps": (1, 2), "name": "x"})  # type: ignore[arg-type]
    found = measured(given, explanation)
    assert found == Measured(1.0, [0.5, 1.0], {"steps": [1, 2], "name": "x"})
    assert found.curve is not None and {type(value) for value in found.curve} == {float}


@pytest.mark.parametrize("value", [math.nan, -math.inf, 10**400, np.float32(np.nan), Measured(0.5, [1.0, math.nan])])
def test_nan_and_infinity_are_no_values(value: Any, explanation: EvaluatedExplanation) -> None:
    with pytest.raises(NotMeasurable, match="^the metric's numbers hold NaN or infinity$"):
        measured(value, explanation)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "metric mine must return a number or seewhy.Measured, not None"),
        (True, "not True"),
        ("0.5", "not '0.5'"),
        (np.zeros(3), "metric mine must return a number or seewhy.Measured, not array"),
        (1j, "not 1j"),
        (Measured(None), "metric mine must return a number or seewhy.Measured, not None"),  # type: ignore[arg-type]
        (Measured(0.5, 3), "metric mine must return a list of numbers as its curve, not 3"),  # type: ignore[arg-type]
        (Measured(0.5, "abc"), "a list of numbers as its curve, not 'abc'"),  # type: ignore[arg-type]
        (Measured(0.5, ["a"]), "a list of numbers as its curve, not 'a'"),  # type: ignore[list-item]
        (Measured(0.5, np.zeros((2, 2))), "a list of numbers as its curve, not array"),  # type: ignore[arg-type]
        (Measured(0.5, None, [1]), "metric mine must return a dict as its details, not \\[1\\]"),  # type: ignore[arg-type]
        (Measured(0.5, None, {"a": object()}), "details that JSON cannot hold: Object of type object is not JSON"),
        (Measured(0.5, None, {"a": math.nan}), "details that JSON cannot hold: Out of range float values"),
        (lambda e, o: 1 / 0, "^metric mine failed with ZeroDivisionError: division by zero$"),
        (lambda e, o: o["none"], "^metric mine failed with KeyError: 'none'$"),
        (lambda e: 0.5, "^metric mine failed with TypeError: .* takes 1 positional argument but 2 were given$"),
    ],
)
def test_wrong_results_give_one_line(result: Any, words: str, explanation: EvaluatedExplanation) -> None:
    with pytest.raises(MetricError, match=words) as raised:
        measured(result, explanation)
    assert "\n" not in str(raised.value) and "mine" in str(raised.value)


@pytest.mark.parametrize("error", [NotMeasurable("the map is constant"), NonFiniteError("NaN"), MemoryError("full")])
def test_errors_on_purpose_pass_through(error: Exception, explanation: EvaluatedExplanation) -> None:
    def fail(explanation: EvaluatedExplanation, options: Any) -> float:
        raise error

    with pytest.raises(type(error)) as raised:
        measured(fail, explanation)
    assert raised.value is error


def test_a_metric_says_where_it_does_not_apply(explainer: Explainer) -> None:
    def unsuitable(method: EvaluatedMethod, scope: Scope, options: Any) -> Any:
        return {"none": None, "text": f"not for {method.name}", "wrong": 3}[options["answer"]]

    metric = Metric("mine", "Mine", "other", "higher", lambda e, o: 0.5, unsuitable=unsuitable)
    method, scope = EvaluatedMethod("cam", "CAM", True, "sum"), Scope(explainer.metadata)

    def ask(answer: str) -> str | None:
        return unsuitable_reason(MetricRequest(metric, {"answer": answer}), method, scope)

    assert ask("none") is None and ask("text") == "not for cam"
    with pytest.raises(MetricError, match="^unsuitable of metric mine must return a text or None, not 3$"):
        ask("wrong")
    with pytest.raises(MetricError, match="^metric mine failed with KeyError: 'unknown'$"):
        ask("unknown")
