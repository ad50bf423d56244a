"""Tests of min-max scaling to [0, 1] against NumPy in float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats

FINITE = st.floats(-(2.0**126), 2.0**126, width=32)  # the difference of two such values does not overflow


def literal(one: NDArray[np.float32]) -> NDArray[np.float64]:
    values = one.astype(np.float64)
    low, high = values.min(), values.max()
    return np.zeros_like(values) if low == high else (values - low) / (high - low)


@settings(deadline=None, max_examples=200)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), elements=FINITE))
def test_it_has_the_bits_of_float32_arithmetic(maps: NDArray[np.float32]) -> None:
    result = _core.minmax(maps)
    for one, scaled in zip(maps, result, strict=True):
        low, high = one.min(), one.max()
        expected = np.zeros_like(one) if low == high else (one - low) / (high - low)
        np.testing.assert_array_equal(scaled, expected)
        # The two differences and the quotient are rounded once each, for values up to 1.
        np.testing.assert_allclose(scaled, literal(one), rtol=0, atol=2 * np.finfo(np.float32).eps)


def test_it_reaches_exactly_0_and_1() -> None:
    result = _core.minmax(floats(5, 13, 17) * np.float32(1e-3) + np.float32(7))
    np.testing.assert_array_equal(result.min(axis=(1, 2)), np.zeros(5))
    np.testing.assert_array_equal(result.max(axis=(1, 2)), np.ones(5))


def test_each_map_is_scaled_separately() -> None:
    maps = np.array([[[0, 1]], [[10, 30]], [[-5, -9]]], np.float32)
    np.testing.assert_array_equal(_core.minmax(maps), [[[0, 1]], [[0, 1]], [[1, 0]]])


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 3e38, 1e-45])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 20)])
def test_a_constant_map_becomes_zeros(value: float, size: tuple[int, int]) -> None:
    result = _core.minmax(np.full((2, *size), value, np.float32))
    assert (result == 0).all() and not np.signbit(result).any()


def test_zeros_of_both_signs_are_constant() -> None:
    assert (_core.minmax(np.array([[[0.0, -0.0]]], np.float32)) == 0).all()


def test_values_that_fill_the_range_of_float32() -> None:
    most = np.finfo(np.float32).max
    np.testing.assert_array_equal(_core.minmax(np.array([[[-most, 0, most]]], np.float32)), [[[0, 0.5, 1]]])


def test_values_that_differ_by_the_smallest_float() -> None:
    smallest = np.float32(1e-45)
    np.testing.assert_array_equal(_core.minmax(np.array([[[0, smallest]]], np.float32)), [[[0, 1]]])
    # 1 and its neighbours: the differences are exact.
    near = np.array([1, np.nextafter(np.float32(1), np.float32(2)), np.nextafter(np.float32(1), np.float32(0))])
    np.testing.assert_allclose(_core.minmax(near.astype(np.float32).reshape(1, 1, 3)), [[[1 / 3, 1, 0]]], rtol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (300, 300)])
def test_non_finite_values_are_an_error_that_names_the_map(bad: float, size: tuple[int, int]) -> None:
    for place in (0, size[0] * size[1] // 2, size[0] * size[1] - 1):
        maps = floats(4, *size)
        maps[2].flat[place] = maps[3].flat[place] = np.float32(bad)
        with pytest.raises(ValueError, match=r"^maps\[2\] holds NaN or infinity$"):
            _core.minmax(maps)


def test_a_map_of_nan_is_not_constant() -> None:
    with pytest.raises(ValueError, match=r"^maps\[0\] holds NaN or infinity$"):
        _core.minmax(np.full((1, 2, 2), np.nan, np.float32))
