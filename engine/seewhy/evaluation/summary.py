"""Compute the summary of an evaluation from the records of its images.

The keys of the summary are:

- `schema`: version of this format.
- `model`, `seed`: facts about the model file, and the seed of all random numbers.
- `images`: numbers of images that were `measured` and that `failed`, and number of `clusters` of measured images.
- `methods`: the rows of the results with `name`, `title`, `reference` (true for `random` and `centre`) and `options`.
- `definitions`: by metric, its `title`, `group`, `direction`, `bounds` and `reference` (the paper).
- `conventions`: values of the options by metric; `reduction` of attributions to a map, by method; the order of `ties`.
- `left_out`: what is not measured, with `metric`, `method` (null for all methods) and `reason`.
- `metrics`: by metric and method, the `mean` of `n` values, its 95 % interval from `low` to `high`, the `direction`
  that is better, the number of `unmeasured` images with their `reasons` and counts, and the means of `details`.
- `comparisons`: by metric, for each pair of rows, `first`, `second`, the mean `difference` first minus second over the
  `n` images in which both have a value, `p`, and `p_holm`, corrected for all pairs of the metric.
- `curves`: by metric and method, `mean`, `low` and `high` at each step, for `n` images.
- `recommendation`: sentences.

`low` and `high` are null if all values are from one cluster, and the mean is null if there is no value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy.evaluation import image_records, statistics
from seewhy.evaluation.image_records import LARGEST, Coverage
from seewhy.evaluation.recommendation import recommend
from seewhy.evaluation.statistics import Doubles
from seewhy.metrics.base import EvaluatedMethod
from seewhy.metrics.metric import Metric, MetricRequest
from seewhy.storage.manifest_lines import Record

Summary: TypeAlias = "dict[str, Any]"
"""Content of `summary.json`, as the docstring of this module describes it."""

SCHEMA = 1
"""Version of the format."""
TIES = "equal values of a map keep their row-major order in rankings"
"""Convention for ties, as text."""
AVERAGED_DETAILS = {"cost": ("passes", "bytes")}
"""Details of metrics whose means the summary holds, by metric."""
OTHER_REASONS = "other reasons"
"""Name of all reasons beyond the most frequent ones."""
_MOST_REASONS = 10


@dataclass
class _Column:
    """Values of one metric for one method, image by image."""

    values: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    curves: list[Floats | None] = field(default_factory=list)
    details: dict[str, list[float]] = field(default_factory=dict)


def summarise(
    records: Iterable[Record],
    methods: Sequence[EvaluatedMethod],
    requests: Sequence[MetricRequest],
    left_out: Sequence[Mapping[str, Any]],
    *,
    model: Mapping[str, Any],
    seed: int,
    note: str | None = None,
    is_complete: bool = True,
) -> Summary:
    """Compute the summary of an evaluation.

    Args:
        records: Records of all images.
        methods: Rows of the results: methods and references, in their order.
        requests: The metrics with their options, in their order.
        left_out: What is not measured, with the keys `metric`, `method` (None for all methods) and `reason`.
        model: Facts about the model file, as JSON can hold them.
        seed: Seed of the random numbers.
        note: A fact that concerns all numbers, as text, or None.
        is_complete: Whether all images were measured or failed.

    Returns:
        The summary. It holds neither NaN nor infinity.

    Raises:
        OutputError: If a record is damaged.
    """
    measured = image_records.coverage([one.name for one in requests], [one.name for one in methods], left_out)
    columns, clusters, failed = _collected(records, measured)
    definitions = {one.name: one.metric for one in requests if one.name in measured}
    summary: Summary = {
        "schema": SCHEMA,
        "model": dict(model),
        "complete": is_complete,
        "note": note,
        "images": {"measured": len(clusters), "failed": failed, "clusters": len(np.unique(clusters))},
        "methods": [_row(one) for one in methods],
        "definitions": {name: _definition(metric) for name, metric in definitions.items()},
        "conventions": {
            **{one.name: dict(one.options) for one in requests if one.name in measured},
            "reduction": {one.name: one.reduction for one in methods if not one.is_map},
            "ties": TIES,
        },
        "seed": seed,
        "left_out": [{key: one[key] for key in ("metric", "method", "reason")} for one in left_out],
        "metrics": {},
        "comparisons": {},
        "curves": {},
    }
    values = {name: np.array([one.values for one in found.values()], np.float64).T for name, found in columns.items()}
    curves = {(name, method): _curves(one) for name, found in columns.items() for method, one in found.items()}
    steps = {key: one for key, one in curves.items() if one is not None}
    ends = iter(_intervals([*values.values(), *steps.values()], clusters, seed))
    for name, found in columns.items():
        summary["metrics"][name] = _statistics(found, values[name], next(ends), definitions[name].direction)
        summary["comparisons"][name] = _comparisons(list(found), values[name], clusters, seed)
    for (name, method), one in steps.items():
        summary["curves"].setdefault(name, {})[method] = _mean_curve(one, next(ends))
    return {**summary, "recommendation": recommend(summary)}


def _collected(records: Iterable[Record], measured: Coverage) -> tuple[dict[str, dict[str, _Column]], Integers, int]:
    """Return the values by metric and method, the cluster of each image, and the number of images that failed."""
    columns = {metric: {method: _Column() for method in methods} for metric, methods in measured.items()}
    numbers: dict[str, int] = {}
    clusters: list[int] = []
    failed = 0
    for record in records:
        if image_records.is_failed(record):
            failed += 1
            continue
        clusters.append(numbers.setdefault(image_records.cluster(record), len(numbers)))
        for metric, by_method in columns.items():
            for method, column in by_method.items():
                found = image_records.measurement(record, metric, method)
                column.values.append(math.nan if found.value is None else found.value)
                if found.reason is not None:
                    column.reasons[found.reason] += 1
                for key in AVERAGED_DETAILS.get(metric, ()):
                    if key in found.details:
                        column.details.setdefault(key, []).append(found.details[key])
                column.curves.append(_curve(found.curve))
    return columns, np.array(clusters, np.int64), failed


def _curve(values: Sequence[float] | None) -> Floats | None:
    """Return a curve as an array, or None if it holds a value that cannot be averaged."""
    usable = values is not None and all(-LARGEST <= value <= LARGEST for value in values)
    return np.array(values, np.float32) if usable else None


def _row(method: EvaluatedMethod) -> dict[str, Any]:
    options = None if method.request is None else dict(method.request.options)
    return {"name": method.name, "title": method.title, "reference": method.is_reference, "options": options}


def _definition(metric: Metric) -> dict[str, Any]:
    return {
        "title": metric.title,
        "group": metric.group,
        "direction": metric.direction,
        "bounds": [None if bound is None else float(bound) for bound in metric.bounds],
        "reference": metric.reference,
    }


def _intervals(tables: Sequence[Doubles], clusters: Integers, seed: int) -> list[Doubles]:
    """Return the intervals of the columns of each table. All share their resamples, whose drawing takes long."""
    if not tables:
        return []
    places = np.cumsum([one.shape[1] for one in tables])[:-1]
    return np.split(statistics.bootstrap_intervals(np.hstack(tables), clusters, seed), places)


def _statistics(columns: Mapping[str, _Column], values: Doubles, intervals: Doubles, direction: str) -> dict[str, Any]:
    """Return mean, interval and counts of one metric by method."""
    averages = statistics.means(values)
    return {
        method: {
            "mean": _number(average),
            "low": _number(low),
            "high": _number(high),
            "n": len(column.values) - column.reasons.total(),
            "direction": direction,
            "unmeasured": column.reasons.total(),
            "reasons": _frequent(column.reasons),
            "details": {key: float(np.mean(found)) for key, found in column.details.items()},
        }
        for (method, column), average, (low, high) in zip(columns.items(), averages, intervals, strict=True)
    }


def _frequent(reasons: Counter[str]) -> dict[str, int]:
    """Return the most frequent reasons with their counts, and the count of all others."""
    found = dict(reasons.most_common(_MOST_REASONS))
    rest = reasons.total() - sum(found.values())
    return {**found, OTHER_REASONS: found.get(OTHER_REASONS, 0) + rest} if rest else found


def _comparisons(methods: Sequence[str], values: Doubles, clusters: Integers, seed: int) -> list[dict[str, Any]]:
    """Return the comparisons of all pairs of methods."""
    tests = statistics.sign_flip_tests(values, clusters, seed)
    corrected = statistics.holm([one.p for one in tests])
    return [
        {
            "first": methods[one.first],
            "second": methods[one.second],
            "difference": one.difference,
            "n": one.n,
            "p": one.p,
            "p_holm": p_holm,
        }
        for one, p_holm in zip(tests, corrected, strict=True)
    ]


def _curves(column: _Column) -> Doubles | None:
    """Return the curves (n, steps), or None if there are none or their numbers of steps differ."""
    steps = {len(one) for one in column.curves if one is not None}
    if len(steps) != 1 or steps == {0}:
        return None
    missing = np.full(steps.pop(), np.nan, np.float32)
    return np.array([missing if one is None else one for one in column.curves], np.float64)


def _mean_curve(values: Doubles, intervals: Doubles) -> dict[str, Any]:
    """Return the mean of curves (n, steps) with its intervals."""
    lines = zip(("mean", "low", "high"), (statistics.means(values), *intervals.T), strict=True)
    return {**{name: list(map(_number, one)) for name, one in lines}, "n": int((~np.isnan(values[:, 0])).sum())}


def _number(value: float) -> float | None:
    """Return a float, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)
