"""Tests of the registry of metrics: fields that only metrics have, and options.

`tests/engine/methods/test_registry_base.py` tests what it shares with the registry of methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import seewhy
from seewhy import ArgumentError, Metric, MetricError, Option
from seewhy.methods.options import number
from seewhy.metrics.built_in import BUILT_IN
from seewhy.metrics.registry import METRICS, origins, resolve_metrics
from support.registered import unregister_all


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    yield
    unregister_all()


def own(direction: Any = "higher", measure: Any = lambda explanation, options: 0.5, **more: Any) -> Metric:
    return Metric("mine", "Mine", more.pop("group", "other"), direction, measure, **more)


def test_the_built_in_metrics_are_listed_in_the_order_of_the_table() -> None:
    assert seewhy.list_metrics() == [metric.name for metric in BUILT_IN] == list(METRICS)
    assert not origins


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (own(group=3), "the group of metric mine must be a printable text, not 3"),
        (own(cost="\0"), "the cost of metric mine must be a printable text"),
        (own("up"), "Unknown direction of metric mine 'up'; choose one of higher, lower, neither"),
        (own(is_default=1), "is_default of metric mine must be True or False, not 1"),
        (own(measure=0.5), "measure of metric mine must be a function of explanation and options, not 0.5"),
        (own(unsuitable=None), "unsuitable of metric mine must be a function of method, scope and options, not None"),
        *(
            (own(bounds=bounds), "the bounds of metric mine must be two numbers, or None where it has no bound")
            for bounds in (None, (0,), [0, 1], ("0", 1), (True, 2), (0, math.inf), (math.nan, 1), (0, 10**400))
        ),
        (own(bounds=(1, 1)), "the lower bound of metric mine must be below the upper one, not \\(1, 1\\)"),
        (own(bounds=(2, 1)), "the lower bound of metric mine must be below the upper one, not \\(2, 1\\)"),
    ],
)
def test_wrong_metrics_are_not_registered(metric: Metric, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as raised:
        seewhy.register_metric(metric)
    assert "\n" not in str(raised.value) and "mine" not in METRICS and not origins


@pytest.mark.parametrize("bounds", [(None, None), (0, None), (None, 0.5), (-1, 1.5)])
def test_bounds(bounds: tuple[float | None, float | None]) -> None:
    assert seewhy.register_metric(own(bounds=bounds)).bounds == bounds


def test_all_is_no_name_of_a_metric() -> None:
    """`--metric all` selects every metric."""
    with pytest.raises(ArgumentError, match="is not 'all' or 'reduction' or 'ties'; it is 'all'"):
        seewhy.register_metric(Metric("all", "All", "other", "higher", lambda explanation, options: 0.5))


def test_options_of_metrics() -> None:
    seewhy.register_metric(own(options=(Option("share", 0.5, number(0, 1), "Share of the pixels."),)))
    mine, entropy = resolve_metrics(["mine", "entropy"], {"mine": {"share": 1}})
    assert mine.options == {"share": 1.0} and entropy.options == {}
    assert resolve_metrics("mine")[0].options == {"share": 0.5}
    with pytest.raises(MetricError, match="^mine: share must be a number from 0 to 1, not 2"):
        resolve_metrics("mine", {"mine": {"share": 2}})
    with pytest.raises(MetricError, match="^mine has no option 'shares'; it has share. Did you mean 'share'?"):
        resolve_metrics("mine", {"mine": {"shares": 1}})
    with pytest.raises(MetricError, match="^entropy has no option 'share'; it has none"):
        resolve_metrics("entropy", {"entropy": {"share": 1}})
