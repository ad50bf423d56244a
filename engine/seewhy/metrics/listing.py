"""The table of all metrics, for documentation and for `seewhy evaluate --list-metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from seewhy.metrics.base import DIRECTIONS
from seewhy.metrics.metric import Metric
from seewhy.metrics.registry import METRICS, list_metrics


def by_group(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    """Return metrics by the question that they answer, in their order."""
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric.group, []).append(metric)
    return groups


def facts(metric: Metric) -> list[str]:
    """Return direction, range, cost and default of a metric as texts."""
    low, high = ("unbounded" if bound is None else f"{bound:g}" for bound in metric.bounds)
    return [
        DIRECTIONS.get(metric.direction, "no direction is better"),
        f"{low} to {high}" if metric.bounds != (None, None) else "unbounded",
        metric.cost or "unknown",
        "measured by default" if metric.is_default else "measured if named",
    ]


def text() -> Iterator[str]:
    """Yield the lines of the table for a terminal.

    Yields:
        Lines of text.

    Raises:
        MetricError: If an installed package's metrics cannot be loaded.
    """
    for group, metrics in by_group(METRICS[name] for name in list_metrics()).items():
        yield f"{group}:"
        for metric in metrics:
            direction, values, cost, default = facts(metric)
            yield f"  {metric.name}: {metric.title}; {direction}; values {values}; {default}"
            yield f"      passes: {cost}; source: {metric.reference}"
            for option in metric.options:
                yield f"      {metric.name}.{option.name}={option.default}  {option.meaning}"
