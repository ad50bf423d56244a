"""Metrics: what they measure, their direction, and where they apply.

A metric measures one explanation at a time: one image, one class, one method. It returns a number, or says why there is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from seewhy.methods.options import Option, Options
from seewhy.metrics.base import EvaluatedMethod, Measured, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation

Measure: TypeAlias = Callable[[EvaluatedExplanation, Options], float | Measured]
"""Measures one explanation, with the values of the metric's options; raises `NotMeasurable` if there is no value."""


def _suits(method: EvaluatedMethod, scope: Scope, options: Options) -> None:
    """Return None: the metric applies to every method."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A number that says how far an explanation can be trusted, built in or registered by a user."""

    name: str
    """Name in Python and on the command line: lower-case letters, digits, `+` and `-`."""
    title: str
    """Name in tables and plots."""
    group: str
    """Question that the metric answers, such as `faithfulness`."""
    direction: str
    """`higher` or `lower` values are better, or `neither`."""
    measure: Measure = field(repr=False)
    """Function that measures one explanation."""
    bounds: tuple[float | None, float | None] = (None, None)
    """Lowest and highest possible value; None is unbounded."""
    reference: str = ""
    """Paper and equation."""
    cost: str = ""
    """Passes of the graph for one explanation, in words."""
    options: tuple[Option, ...] = ()
    """Options that a user can set. They are conventions, and are recorded with the results."""
    is_default: bool = True
    """True if the metric is measured unless others are named; False for costly ones."""
    uses_partners: bool = False
    """True if the metric puts images of other classes beside an image, with `EvaluatedImage.partners`."""
    unsuitable: Callable[[EvaluatedMethod, Scope, Options], str | None] = _suits
    """Function that returns why the metric does not apply to a method, or None if it does."""


@dataclass(frozen=True)
class MetricRequest:
    """A metric with a value for each of its options."""

    metric: Metric
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the options by name."""

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.metric.name


def only_with_probabilities(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    """Return why a metric of probabilities does not apply."""
    return None if scope.has_probabilities else "the model gives logits without probabilities"


def not_for_files(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    """Return why a metric that explains changed images or other classes does not apply."""
    return "the maps are files, and there are none for changed images or other classes" if method.has_files else None
