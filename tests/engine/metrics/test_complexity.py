"""Tests of the metrics of complexity against hand-computed cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable
from seewhy.metrics.complexity import COMPLEXITY
from support.evaluated import evaluated, measure
from support.tiny_model_files import pixels

SPARSENESS, ENTROPY, TOP_ENERGY = COMPLEXITY


def value(metric: object, explainer: Explainer, values: list[float], **options: float) -> float:
    """Return the metric's value for a map of 12 x 16 pixels that repeats some values."""
    one = np.resize(np.array(values, np.float32), (12, 16))
    explanation = evaluated(explainer, pixels(1)[0], maps={"given": one}, target=0)["given"]
    return measure(metric, explanation, **options).value  # type: ignore[arg-type]


# Gini index: half the mean absolute difference of all pairs, divided by the mean.


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5], 0), ([1, 3], 1 / 4), ([-1, 3], 1 / 4), ([0, 0, 0, 2], 3 / 4), ([1, 2, 3, 4], 1 / 4)],
)
def test_sparseness(explainer: Explainer, values: list[float], expected: float) -> None:
    size = np.abs(np.resize(np.array(values, np.float64), 192))
    pairs = np.abs(size[:, None] - size).mean() / 2 / size.mean()
    assert value(SPARSENESS, explainer, values) == pytest.approx(expected) == pytest.approx(pairs)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], np.log(192)),
        ([0, -3], np.log(96)),
        # Half of the pixels hold a quarter of the map, and the other half the rest.
        ([1, 3], 0.25 * np.log(96 / 0.25) + 0.75 * np.log(96 / 0.75)),
        ([1, *[0] * 191], 0),
    ],
)
def test_entropy(explainer: Explainer, values: list[float], expected: float) -> None:
    assert value(ENTROPY, explainer, values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1], 0.25, 0.25),
        ([0, 0, 0, -1], 0.25, 1),
        ([1, 3], 0.25, 3 / 8),
        ([1, 3], 0.75, 3 / 4 + 1 / 8),
        ([1, 3], 1, 1),
        ([2, *[1] * 191], 0, 2 / 193),  # at least one pixel
    ],
)
def test_top_energy(explainer: Explainer, values: list[float], share: float, expected: float) -> None:
    assert value(TOP_ENERGY, explainer, values, share=share) == pytest.approx(expected)


def test_top_energy_takes_five_percent(explainer: Explainer) -> None:
    values = [*[10] * 10, *[1] * 182]  # 5 % of 192 pixels are 9.6, rounded to 10
    assert value(TOP_ENERGY, explainer, values) == pytest.approx(100 / 282)


@pytest.mark.parametrize("metric", COMPLEXITY, ids=lambda one: one.name)
def test_a_map_of_zeros_has_no_value(explainer: Explainer, metric: object) -> None:
    with pytest.raises(NotMeasurable, match="the map is zero everywhere"):
        value(metric, explainer, [0])


def test_sharper_maps_are_better(explainer: Explainer) -> None:
    """Raise a map to higher and higher powers."""
    base = np.random.default_rng(0).uniform(size=192)
    for metric in COMPLEXITY:
        values = [value(metric, explainer, list(base**power)) for power in (1, 2, 4, 8)]
        rising = all(a < b for a, b in pairwise(values))
        assert rising if metric.direction == "higher" else all(a > b for a, b in pairwise(values))
