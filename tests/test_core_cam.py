"""The sums of the CAM family, against exact sums of the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core_calls import floats
from seewhy import _core

SIZES = st.integers(1, 12)
# Summed in float64 and rounded once: one unit in the last place of float32, unless the terms cancel nearly to zero,
# where what is left of the float64 roundings counts.
CANCELLED = 1e-13


def literal_means(gradients: NDArray[np.float32]) -> NDArray[np.float64]:
    count, channels, height, width = gradients.shape
    result = np.empty((count, channels))
    for n in range(count):
        for c in range(channels):
            result[n, c] = math.fsum(float(g) for g in gradients[n, c].flat) / (height * width)
    return result


def literal_sum(activations: NDArray[np.float32], weights: NDArray[np.float32], relu: bool) -> NDArray[np.float64]:
    count, channels, height, width = activations.shape
    result = np.empty((count, height, width))
    for n in range(count):
        for y in range(height):
            for x in range(width):
                terms = [float(weights[n, c]) * float(activations[n, c, y, x]) for c in range(channels)]
                total = math.fsum(terms)
                result[n, y, x] = max(0.0, total) if relu else total
    return result


def assert_one_rounding(result: NDArray[np.float32], exact: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(result, exact, rtol=np.finfo(np.float32).eps, atol=CANCELLED)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3), channels=SIZES, height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_means_are_exact_but_for_one_rounding(count: int, channels: int, height: int, width: int, seed: int) -> None:
    gradients = floats(count, channels, height, width, seed=seed)
    assert_one_rounding(_core.channel_means(gradients), literal_means(gradients))


def test_means_of_large_maps_are_accurate() -> None:
    gradients = floats(1, 2, 512, 512) + np.float32(1000)
    assert_one_rounding(_core.channel_means(gradients), literal_means(gradients))
    # float32 sums would end far from this mean: one in 2**24 values is lost at a time.
    gradients = np.full((1, 1, 512, 512), 0.1, np.float32)
    gradients[0, 0, 0, 0] = 1e7
    assert_one_rounding(_core.channel_means(gradients), literal_means(gradients))


def test_the_mean_of_one_pixel_is_that_pixel() -> None:
    gradients = floats(3, 5, 1, 1)
    np.testing.assert_array_equal(_core.channel_means(gradients), gradients[:, :, 0, 0])


@pytest.mark.parametrize("relu", [False, True])
@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3), channels=SIZES, height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_weighted_sums_are_exact_but_for_one_rounding(
    relu: bool, count: int, channels: int, height: int, width: int, seed: int
) -> None:
    activations = floats(count, channels, height, width, seed=seed)
    weights = floats(count, channels, seed=seed + 1)
    assert_one_rounding(_core.weighted_sum(activations, weights, relu), literal_sum(activations, weights, relu))


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (15, 17), (16, 16), (1, 257), (23, 29)])
def test_weighted_sums_of_many_channels(size: tuple[int, int]) -> None:
    activations, weights = floats(1, 515, *size), floats(1, 515, seed=1)
    assert_one_rounding(_core.weighted_sum(activations, weights), literal_sum(activations, weights, False))


def test_a_map_summed_by_hand() -> None:
    activations = np.array([[[[1, 2], [3, -4]], [[10, -20], [30, 40]]]], np.float32)
    weights = np.array([[2, 0.5]], np.float32)
    np.testing.assert_array_equal(_core.weighted_sum(activations, weights), [[[7, -6], [21, 12]]])
    np.testing.assert_array_equal(_core.weighted_sum(activations, weights, relu=True), [[[7, 0], [21, 12]]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_hidden(bad: float) -> None:
    gradients = floats(2, 9, 5, 5)
    gradients[1, 4, 2, 3] = bad
    means = _core.channel_means(gradients)
    np.testing.assert_equal(means[1, 4], np.float32(bad))
    means[1, 4] = 0
    assert np.isfinite(means).all()

    for relu in (False, True):
        sums = _core.weighted_sum(gradients, np.ones((2, 9), np.float32), relu)
        np.testing.assert_equal(sums[1, 2, 3], np.float32(0 if relu and bad == -np.inf else bad))
        sums[1, 2, 3] = 0
        assert np.isfinite(sums).all()


def test_relu_keeps_nan() -> None:
    # Infinities that cancel, and a weight of zero on infinity, are NaN and must stay so.
    activations = np.array([[[[np.inf]], [[-np.inf]]], [[[np.inf]], [[1]]]], np.float32)
    weights = np.array([[1, 1], [0, 1]], np.float32)
    assert np.isnan(_core.weighted_sum(activations, weights, relu=True)).all()
