"""Clear differences: which row of the results is better than which, as far as the corrected tests show it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from seewhy.evaluation.statistics import SIGNIFICANCE
from seewhy.metrics.base import HIGHER, LOWER

FEWEST_IMAGES = 10
"""Number of images below which no difference counts as clear. So few images do not represent what a model will see,
even if the tests, which assume that they do, find a difference."""


@dataclass(frozen=True)
class MetricResult:
    """Results of one metric."""

    name: str
    """Name of the metric."""
    group: str
    """Question that the metric answers."""
    means: Mapping[str, float]
    """Mean by name of the method or reference, without rows that have no value."""
    better: frozenset[tuple[str, str]]
    """Pairs of rows of which the first is clearly better than the second; empty if no direction is better."""

    def winner(self, methods: Collection[str]) -> str | None:
        """Return the method that is clearly better than each of the others, or None."""
        rivals = self._measured(methods)
        found = [one for one in rivals if all((one, other) in self.better for other in rivals if other != one)]
        return found[0] if len(rivals) > 1 and found else None

    def leaders(self, methods: Collection[str]) -> tuple[str, ...]:
        """Return the methods than which no other is clearly better, in their order."""
        rivals = self._measured(methods)
        return tuple(one for one in rivals if not any((other, one) in self.better for other in rivals))

    def _measured(self, methods: Collection[str]) -> list[str]:
        return [one for one in methods if one in self.means]


def metric_results(summary: Mapping[str, Any]) -> dict[str, MetricResult]:
    """Return the results of all metrics of a summary by name."""
    enough = summary["images"]["clusters"] >= FEWEST_IMAGES
    return {
        name: MetricResult(
            name,
            summary["definitions"][name]["group"],
            {method: one["mean"] for method, one in by_method.items() if one["mean"] is not None},
            frozenset(_better_pairs(summary, name)) if enough else frozenset(),
        )
        for name, by_method in summary["metrics"].items()
    }


def _better_pairs(summary: Mapping[str, Any], metric: str) -> list[tuple[str, str]]:
    sign = {HIGHER: 1, LOWER: -1}.get(summary["definitions"][metric]["direction"])
    if sign is None:
        return []
    clear = [
        one for one in summary["comparisons"][metric] if one["p_holm"] <= SIGNIFICANCE and one["n"] >= FEWEST_IMAGES
    ]
    pairs = [(one["first"], one["second"]) for one in clear]
    return [
        pair if sign * one["difference"] > 0 else (pair[1], pair[0]) for one, pair in zip(clear, pairs, strict=True)
    ]


def rows(summary: Mapping[str, Any], references: bool) -> dict[str, str]:
    """Return the titles of all references, or else of all methods, by name."""
    return {one["name"]: one["title"] for one in summary["methods"] if one["reference"] is references}
