"""Tests of the gradient kernels against loops in float64 and exact rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats, heat

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
ANY = st.floats(width=32, allow_nan=False)


def literal_max_abs(gradients: NDArray[np.float32]) -> NDArray[np.float32]:
    count, channels, height, width = gradients.shape
    result = np.empty((count, height, width), np.float32)
    for n in range(count):
        for y in range(height):
            for x in range(width):
                result[n, y, x] = max(abs(gradients[n, c, y, x]) for c in range(channels))
    return result


def literal_rgb(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the RGB values of one image, (H,W,3), before rounding."""
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    scaled = np.zeros_like(values) if low == high else (values - low) / (high - low) * 255
    return scaled.repeat(3 // len(image), axis=0).transpose(1, 2, 0)


@settings(deadline=None, max_examples=100)
@given(arrays(np.float32, SHAPES, elements=ANY))
def test_the_largest_magnitude_is_exact(gradients: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(_core.max_abs(gradients), literal_max_abs(gradients))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_larger_than_everything(channels: int, sign: int) -> None:
    for channel in range(channels):
        gradients = floats(2, channels, 5, 7)
        gradients[1, :, 2, 3] = np.inf
        gradients[1, channel, 2, 3] = np.copysign(np.float32(np.nan), np.float32(sign))
        result = _core.max_abs(gradients)
        assert np.isnan(result[1, 2, 3])
        result[1, 2, 3] = 0
        assert np.isfinite(result).all()


@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None, max_examples=60)
@given(size=st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11)), seed=st.integers(0, 2**32))
def test_images_are_rounded_exactly(channels: int, size: tuple[int, int, int], seed: int) -> None:
    count, height, width = size
    gradients = floats(count, channels, height, width, seed=seed)
    result = _core.gradient_rgb(gradients)
    assert result.shape == (count, height, width, 3)
    for image, picture in zip(gradients, result, strict=True):
        low, high = image.min(), image.max()
        scaled = np.zeros_like(image) if low == high else (image - low) / (high - low)
        expected = np.rint(scaled * np.float32(255)).astype(np.uint8)
        np.testing.assert_array_equal(picture, expected.repeat(3 // channels, axis=0).transpose(1, 2, 0))
        # The error is at most half a step; 1e-4 allows for four float32 roundings of values up to 255.
        assert np.abs(picture - literal_rgb(image)).max() <= 0.5 + 1e-4


def test_halves_are_rounded_to_even() -> None:
    # With a range of exactly 255 * 2**k, scaling is exact, including halves.
    values = np.array([0, 0.5, 1.5, 2.5, 3.5, 126.5, 127.5, 253.5, 254.5, 255, 0.25, 0.75], np.float32)
    scaled = values / np.float32(255) * np.float32(255)
    result = _core.gradient_rgb(values.reshape(1, 1, 1, -1))[0, 0, :, 0]
    np.testing.assert_array_equal(result, np.rint(scaled))
    halves = (scaled % 1 == 0.5) & (np.floor(scaled) % 2 == 0)
    assert halves.any(), "none of the values rounds down from a half, so this test shows nothing"
    np.testing.assert_array_equal(result[halves], np.floor(scaled[halves]))


def test_the_whole_image_shares_one_scale() -> None:
    gradients = np.array([[[[-1]], [[0]], [[1]]], [[[0]], [[10]], [[5]]]], np.float32)
    np.testing.assert_array_equal(_core.gradient_rgb(gradients), [[[[0, 128, 255]]], [[[0, 255, 128]]]])


@pytest.mark.parametrize("value", [0.0, -4.0, 3e38])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_gradient_becomes_black(value: float, channels: int) -> None:
    assert not _core.gradient_rgb(np.full((2, channels, 5, 6), value, np.float32)).any()


def test_gradients_that_fill_the_range_of_float32() -> None:
    most = np.finfo(np.float32).max
    gradients = np.array([[[[-most]], [[0]], [[most]]]], np.float32)
    np.testing.assert_array_equal(_core.gradient_rgb(gradients), [[[[0, 128, 255]]]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_non_finite_values_are_an_error_that_names_the_image(bad: float, channels: int) -> None:
    for channel in range(channels):
        gradients = floats(3, channels, 9, 7)
        gradients[1:, channel, 8, 6] = bad
        with pytest.raises(ValueError, match=r"^gradients\[1\] holds NaN or infinity$"):
            _core.gradient_rgb(gradients)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_each_channel_is_multiplied_by_the_map(shape: tuple[int, int, int, int], seed: int) -> None:
    count, channels, height, width = shape
    gradients, maps = floats(*shape, seed=seed), heat(count, height, width, seed=seed + 1)
    expected = np.empty(shape, np.float32)
    for n in range(count):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    expected[n, c, y, x] = gradients[n, c, y, x] * maps[n, y, x]
    np.testing.assert_array_equal(_core.multiply_by_map(gradients, maps), expected)


def test_a_product_with_nan_is_nan() -> None:
    gradients, maps = floats(1, 3, 2, 2), np.zeros((1, 2, 2), np.float32)
    gradients[0, 1, 0, 1] = np.nan
    maps[0, 1, 0] = np.nan
    result = _core.multiply_by_map(gradients, maps)
    assert np.isnan(result[0, :, 1, 0]).all() and np.isnan(result[0, 1, 0, 1])
    assert np.isnan(result).sum() == 4
