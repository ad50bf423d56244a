"""Tests of GPTQ against a literal version of its paper's equations, and of the range of weights."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.quantization.calibration import Moments
from seewhy.quantization.weight_rounding import LARGEST, round_weights


def literal_gptq(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round one row as Frantar et al. describe it before their speed-ups: equations 2 and 3, one weight at a time."""
    step = np.float32(np.abs(weights).max() / LARGEST)
    row, stored = weights.copy(), np.zeros_like(weights)
    damped = moments + 0.01 * np.trace(moments) / len(row) * np.eye(len(row))
    left = list(np.argsort(-np.diag(moments), kind="stable"))
    while left:
        inverse = np.linalg.inv(damped[np.ix_(left, left)])
        now = left[0]
        stored[now] = np.clip(np.rint(row[now] / step), -LARGEST, LARGEST)
        row[left] -= (row[now] - stored[now] * step) / inverse[0, 0] * inverse[:, 0]
        left = left[1:]
    return stored


def of(covariance: NDArray[np.float64], mean: float = 0) -> Moments:
    """Return moments of inputs with the same mean, of shapes (groups, K) and (groups, K, K)."""
    return Moments(np.full(covariance.shape[:2], mean), covariance)


def example(count: int, rows: int = 4) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return weights of shape (rows, count, 1, 1) and moments of correlated inputs."""
    random = np.random.default_rng(5)
    inputs = random.standard_normal((4 * count, 3)) @ random.standard_normal((3, count))
    inputs = np.maximum(inputs + 0.3 * random.standard_normal(inputs.shape), 0)
    return random.standard_normal((rows, count, 1, 1)).astype(np.float32), inputs.T @ inputs


@pytest.mark.parametrize("count", [1, 9, 150])  # 150 exceeds one block of columns
def test_it_equals_the_literal_equations(count: int) -> None:
    weights, moments = example(count)
    found = round_weights(weights, of(moments[None]))
    expected = np.array([literal_gptq(row.ravel().astype(np.float64), moments) for row in weights])
    # A value that lies within float64's rounding of the middle between two steps may go either way.
    assert np.mean(found.stored.reshape(len(weights), -1) == expected) > 0.99


def test_outputs_change_less_than_by_plain_rounding() -> None:
    weights, moments = example(64)
    found = round_weights(weights, of(moments[None]))
    scale = found.scale.reshape(-1, 1, 1, 1)
    plain = np.rint(weights / scale) * scale

    def error(values: NDArray[np.float32]) -> float:
        change = (values - weights).reshape(len(weights), -1).astype(np.float64)
        return float(np.einsum("ok,kl,ol->", change, moments, change))

    assert error(found.values) < 0.5 * error(plain)


def test_the_shift_is_what_rounding_adds_to_the_mean_output() -> None:
    weights, covariance = example(6)
    mean = np.arange(1.0, 13).reshape(2, 6)
    found = round_weights(weights, Moments(mean, np.stack([covariance, covariance])))
    for channel, row in enumerate(weights):
        change = found.values[channel].astype(np.float64) - row
        # The values are float32; the sum of six is rounded at most so often.
        expected = sum(a * b for a, b in zip(change.ravel(), mean[channel // 2], strict=True))
        assert found.shift[channel] == pytest.approx(expected, abs=12 * 6 * float(np.abs(row).max()) * 2.0**-23)
    assert np.abs(found.shift).max() > 0.01


def test_groups_are_rounded_by_their_own_moments() -> None:
    weights, moments = example(6, rows=4)
    both = np.stack([moments, np.diag(np.arange(1.0, 7))])
    found = round_weights(weights, of(both))
    for group in range(2):
        part = slice(2 * group, 2 * group + 2)
        np.testing.assert_array_equal(found.stored[part], round_weights(weights[part], of(both[group][None])).stored)


def test_zero_weights_and_unused_inputs_stay_finite() -> None:
    found = round_weights(np.zeros((2, 3, 1, 1), np.float32), of(np.zeros((1, 3, 3))))
    assert not found.stored.any()
    assert np.isfinite(found.scale).all()
    assert (found.scale > 0).all()
