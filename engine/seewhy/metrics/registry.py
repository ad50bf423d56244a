"""Registry of all metrics: built-in ones, those of plugins and those of installed packages.

A user's own metric is one file that calls `seewhy.register_metric`, or a package that names `Metric` objects as entry
points of the group `seewhy.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError, MetricError
from seewhy.methods.options import resolve_options
from seewhy.methods.registry_base import Registry
from seewhy.metrics.base import HIGHER, LOWER, NEITHER
from seewhy.metrics.built_in import BUILT_IN
from seewhy.metrics.metric import Metric, MetricRequest


def _validate(metric: Metric) -> None:
    """Validate what a metric has and a method lacks."""
    name = metric.name
    for field in ("group", "cost"):
        text = getattr(metric, field)
        if not isinstance(text, str) or not text.isprintable():
            raise ArgumentError(f"the {field} of metric {name} must be a printable text, not {brief(text)}")
    checks.one_of(f"direction of metric {name}", metric.direction, (HIGHER, LOWER, NEITHER))
    for flag in ("is_default", "uses_partners"):
        checks.flag(f"{flag} of metric {name}", getattr(metric, flag))
    for field, arguments in (("measure", "explanation and options"), ("unsuitable", "method, scope and options")):
        function = getattr(metric, field)
        if not callable(function):
            raise ArgumentError(f"{field} of metric {name} must be a function of {arguments}, not {brief(function)}")
    bounds = metric.bounds
    if not isinstance(bounds, tuple) or len(bounds) != 2 or not all(one is None or _is_finite(one) for one in bounds):
        raise ArgumentError(
            f"the bounds of metric {name} must be two numbers, or None where it has no bound, not {brief(bounds)}"
        )
    if None not in bounds and not bounds[0] < bounds[1]:  # type: ignore[operator]
        raise ArgumentError(f"the lower bound of metric {name} must be below the upper one, not {brief(bounds)}")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


# `--metric all` selects every metric, and the others are further conventions that summaries record.
_registry = Registry("metric", Metric, MetricError, _validate, ("all", "reduction", "ties"), BUILT_IN)

METRICS = _registry.entries
"""All metrics that are registered in this process, by name."""

origins = _registry.origins
"""Origin of each metric that is not built in, as `run.json` records it."""


def register_metric(metric: Metric, *, replace: bool = False) -> Metric:
    """Register a metric, so that it can be used by its name like the built-in ones.

    Args:
        metric: The metric.
        replace: Whether a metric of the same name that was registered before is replaced, for instance when a cell of
            a notebook runs again. Built-in metrics cannot be replaced.

    Returns:
        The same metric, so that a module can keep it.

    Raises:
        ArgumentError: If a field of the metric is not valid, or a method or metric has the name already.
    """
    return _registry.register(metric, replace)


def list_metrics() -> list[str]:
    """Return the names of all metrics: the built-in ones, those of entry points and those registered so far.

    Returns:
        Names in the order of the table, then in the order of registration.

    Raises:
        MetricError: If an installed package's metrics cannot be loaded.
    """
    return _registry.names()


def resolve_metrics(
    metrics: str | Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[MetricRequest, ...]:
    """Resolve names of metrics and their options into requests. Each metric is kept once, in the given order.

    Args:
        metrics: One name, or a list of names.
        options: Options by metric and name; None leaves all at their defaults.

    Returns:
        A request for each metric.

    Raises:
        MetricError: If a metric is unknown, none is given, or an option is unknown or wrong.
    """
    names = _registry.list_of_names(metrics)
    if not names:
        raise MetricError(f"no metric given; choose from {', '.join(list_metrics())}")
    found = [_registry.find(name) for name in names]
    given = _registry.options_by_name(names, options)
    return tuple(
        MetricRequest(metric, resolve_options(metric.name, metric.options, given.get(metric.name), MetricError))
        for metric in dict.fromkeys(found)
    )
