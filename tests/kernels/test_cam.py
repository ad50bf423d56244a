"""Tests of the CAM kernels against exact sums of the same numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import call, floats

SIZES = st.integers(1, 12)
# The sums are computed in float64 and rounded once, so the error is one unit in the last place of float32. If the terms
# nearly cancel, the rounding errors of float64 remain.
CANCELLED = 1e-13


def literal_means(gradients: NDArray[np.float32]) -> NDArray[np.float64]:
    count, channels, height, width = gradients.shape
    result = np.empty((count, channels))
    for n in range(count):
        for c in range(channels):
            result[n, c] = math.fsum(float(g) for g in gradients[n, c].flat) / (height * width)
    return result


def literal_sum(activations: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    count, channels, height, width = activations.shape
    result = np.empty((count, height, width))
    for n in range(count):
        for y in range(height):
            for x in range(width):
                terms = [float(weights[n, c]) * float(activations[n, c, y, x]) for c in range(channels)]
                result[n, y, x] = math.fsum(terms)
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
    # Sums in float32 would be far from this mean, because adding 0.1 to 1e7 changes nothing in float32.
    gradients = np.full((1, 1, 512, 512), 0.1, np.float32)
    gradients[0, 0, 0, 0] = 1e7
    assert_one_rounding(_core.channel_means(gradients), literal_means(gradients))


def test_the_mean_of_one_pixel_is_that_pixel() -> None:
    gradients = floats(3, 5, 1, 1)
    np.testing.assert_array_equal(_core.channel_means(gradients), gradients[:, :, 0, 0])


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3), channels=SIZES, height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_weighted_sums_are_exact_but_for_one_rounding(
    count: int, channels: int, height: int, width: int, seed: int
) -> None:
    activations = floats(count, channels, height, width, seed=seed)
    weights = floats(count, channels, seed=seed + 1)
    assert_one_rounding(_core.weighted_sum(activations, weights), literal_sum(activations, weights))


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (15, 17), (16, 16), (1, 257), (23, 29)])
def test_weighted_sums_of_many_channels(size: tuple[int, int]) -> None:
    activations, weights = floats(1, 515, *size), floats(1, 515, seed=1)
    assert_one_rounding(_core.weighted_sum(activations, weights), literal_sum(activations, weights))


def test_a_map_summed_by_hand() -> None:
    activations = np.array([[[[1, 2], [3, -4]], [[10, -20], [30, 40]]]], np.float32)
    weights = np.array([[2, 0.5]], np.float32)
    np.testing.assert_array_equal(_core.weighted_sum(activations, weights), [[[7, -6], [21, 12]]])


# Weights from activations and gradients, in exact fractions.


def literal_plus_plus(activations: NDArray[np.float32], gradients: NDArray[np.float32]) -> Fraction:
    total = sum(map(Fraction, activations.ravel().tolist()))
    weight = Fraction(0)
    for g in map(Fraction, gradients.ravel().tolist()):
        denominator = 2 * g**2 + total * g**3
        if denominator != 0:
            weight += g**2 / denominator * max(g, Fraction(0))
    return weight


def literal_axiom(activations: NDArray[np.float32], gradients: NDArray[np.float32]) -> Fraction:
    pairs = [(Fraction(float(a)), Fraction(float(g))) for a, g in zip(activations.flat, gradients.flat, strict=True)]
    total = sum(a for a, _ in pairs)
    return sum((g * a for a, g in pairs), Fraction(0)) / total if total != 0 else Fraction(0)


WEIGHTS = {
    "gradcam_plus_plus_weights": literal_plus_plus,
    "xgradcam_weights": literal_axiom,
}


@pytest.mark.parametrize("kernel", WEIGHTS)
@pytest.mark.parametrize("offset", [0.0, 1.0])
@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3), channels=st.integers(1, 4), height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_weights_are_exact_but_for_one_rounding(
    kernel: str, offset: float, count: int, channels: int, height: int, width: int, seed: int
) -> None:
    shape = (count, channels, height, width)
    activations, gradients = floats(*shape, seed=seed) + np.float32(offset), floats(*shape, seed=seed + 1)
    exact = [
        [float(WEIGHTS[kernel](a, g)) for a, g in zip(image, slopes, strict=True)]
        for image, slopes in zip(activations, gradients, strict=True)
    ]
    found = call(kernel, {"activations": activations, "gradients": gradients})
    # Without the offset, sums of activations or denominators may be close to zero; float64 then has errors of 1e-10.
    np.testing.assert_allclose(found, exact, rtol=np.finfo(np.float32).eps, atol=1e-10)


@pytest.mark.parametrize("kernel", WEIGHTS)
def test_a_term_with_a_denominator_of_zero_counts_as_zero(kernel: str) -> None:
    activations = np.array([[[[-3, -1, 0]], [[0, 0, 0]], [[2, -2, 0]]]], np.float32)
    gradients = np.array([[[[0.5, 0.5, 0.5]], [[0, 1, 2]], [[0, -1, 1]]]], np.float32)
    expected = {"gradcam_plus_plus_weights": [0, 1.5, 0.5], "xgradcam_weights": [0.5, 0, 0]}[kernel]
    assert call(kernel, {"activations": activations, "gradients": gradients}).tolist() == [expected]


@pytest.mark.parametrize("positive", [False, True])
@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3), channels=SIZES, height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_sums_of_products_are_exact_but_for_one_rounding(
    positive: bool, count: int, channels: int, height: int, width: int, seed: int
) -> None:
    shape = (count, channels, height, width)
    activations, gradients = floats(*shape, seed=seed), floats(*shape, seed=seed + 1)
    exact = np.empty((count, height, width))
    for n, y, x in np.ndindex(exact.shape):
        slopes = [float(g) for g in gradients[n, :, y, x]]
        exact[n, y, x] = math.fsum(
            (max(0.0, g) if positive else g) * float(a) for g, a in zip(slopes, activations[n, :, y, x], strict=True)
        )
    assert_one_rounding(_core.product_sum(activations, gradients, positive), exact)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (1, 257), (23, 29)])
def test_sums_of_products_in_maps_of_several_blocks(size: tuple[int, int]) -> None:
    activations, gradients = floats(2, 67, *size), floats(2, 67, *size, seed=1)
    exact = (activations.astype(np.float64) * gradients).sum(axis=1)
    assert_one_rounding(_core.product_sum(activations, gradients), exact)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("argument", ["activations", "gradients"])
@pytest.mark.parametrize("rest", [0.0, 1.0])
@pytest.mark.parametrize("kernel", [*WEIGHTS, "product_sum", "positive product_sum"])
def test_non_finite_values_stay_non_finite(kernel: str, argument: str, bad: float, rest: float) -> None:
    """This holds whether the other values are zero or not; only a rectified gradient of -infinity becomes zero."""
    arguments = {name: np.full((2, 3, 4, 5), rest, np.float32) for name in ("activations", "gradients")}
    arguments[argument][1, 2, 3, 4] = bad
    kernel, rectified = kernel.removeprefix("positive "), kernel != "product_sum" and kernel != "xgradcam_weights"
    if kernel == "product_sum":
        result = _core.product_sum(**arguments, positive=rectified)[1, 3, 4]
    else:
        result = call(kernel, arguments)[1, 2]
    if argument == "gradients" and rectified and bad == -np.inf:
        assert np.isfinite(result)
    else:
        assert not np.isfinite(result)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_never_hidden(bad: float) -> None:
    gradients = floats(2, 9, 5, 5)
    gradients[1, 4, 2, 3] = bad
    means = _core.channel_means(gradients)
    np.testing.assert_equal(means[1, 4], np.float32(bad))
    means[1, 4] = 0
    assert np.isfinite(means).all()

    sums = _core.weighted_sum(gradients, np.ones((2, 9), np.float32))
    np.testing.assert_equal(sums[1, 2, 3], np.float32(bad))
    sums[1, 2, 3] = 0
    assert np.isfinite(sums).all()
