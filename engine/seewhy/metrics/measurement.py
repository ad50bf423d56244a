"""Run the functions of a metric and validate what they return."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from seewhy._shared.text import brief, first_line
from seewhy.errors import MetricError, SeewhyError
from seewhy.metrics.base import EvaluatedMethod, Measured, NotMeasurable, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import MetricRequest


def measure_metric(request: MetricRequest, explanation: EvaluatedExplanation) -> Measured:
    """Measure one explanation by one metric.

    Args:
        request: The metric and its options.
        explanation: The explanation.

    Returns:
        The value, a finite float, with its curve as a list of finite floats, and details that JSON can hold.

    Raises:
        NotMeasurable: If the metric has no value for the explanation, or its value or curve holds NaN or infinity.
        MetricError: If the metric fails, or returns something other than a number or `Measured`.
    """
    name = request.name
    try:
        result = request.metric.measure(explanation, request.options)
    except (NotMeasurable, SeewhyError, MemoryError):
        raise
    except Exception as error:
        raise _failed(name, error) from error
    if not isinstance(result, Measured):
        result = Measured(result)
    value = _number(name, "a number or seewhy.Measured", result.value)
    curve = None if result.curve is None else _curve(name, result.curve)
    if not all(map(math.isfinite, (value, *(curve or ())))):
        raise NotMeasurable("the metric's numbers hold NaN or infinity")
    return Measured(value, curve, _details(name, result.details))


def unsuitable_reason(request: MetricRequest, method: EvaluatedMethod, scope: Scope) -> str | None:
    """Ask a metric whether it applies to a method.

    Args:
        request: The metric and its options.
        method: The method.
        scope: Facts about the evaluation.

    Returns:
        The reason why it does not apply, or None if it does.

    Raises:
        MetricError: If the metric's function fails, or returns something other than a text or None.
    """
    try:
        reason = request.metric.unsuitable(method, scope, request.options)
    except (SeewhyError, MemoryError):
        raise
    except Exception as error:
        raise _failed(request.name, error) from error
    if reason is not None and not isinstance(reason, str):
        raise MetricError(f"unsuitable of metric {request.name} must return a text or None, not {brief(reason)}")
    return reason


def _failed(name: str, error: Exception) -> MetricError:
    return MetricError(f"metric {name} failed with {type(error).__name__}: {first_line(error)}")


def _number(name: str, expected: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise MetricError(f"metric {name} must return {expected}, not {brief(value)}")
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return math.inf


def _curve(name: str, curve: Any) -> list[float]:
    if isinstance(curve, (str, Mapping)) or not isinstance(curve, Iterable):
        raise MetricError(f"metric {name} must return a list of numbers as its curve, not {brief(curve)}")
    return [_number(name, "a list of numbers as its curve", value) for value in curve]


def _details(name: str, details: Any) -> Mapping[str, Any]:
    if not isinstance(details, Mapping):
        raise MetricError(f"metric {name} must return a dict as its details, not {brief(details)}")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(details), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise MetricError(f"metric {name} returns details that JSON cannot hold: {first_line(error)}") from None
    return copy
