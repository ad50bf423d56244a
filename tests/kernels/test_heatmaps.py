"""Tests of heatmaps of low-resolution maps, against the kernels that upsample and scale maps one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats

FINITE = st.floats(-(2.0**120), 2.0**120, width=32)


def in_sequence(maps: NDArray[np.float32], relu: bool, height: int, width: int) -> NDArray[np.float32]:
    shown = np.maximum(maps, np.float32(0)) if relu else maps
    return _core.minmax(_core.upsample(shown, height, width))


@settings(deadline=None, max_examples=200)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), elements=FINITE),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_they_have_the_values_of_the_kernels_in_sequence(
    maps: NDArray[np.float32], relu: bool, height: int, width: int
) -> None:
    np.testing.assert_array_equal(
        _core.heatmaps(maps, relu, height, width), in_sequence(maps, relu, height, width), strict=True
    )


LIMITS = np.finfo(np.float32)
EXTREMES = [0.0, -0.0, 1.0, 1e-45, *(float(limit) for limit in (LIMITS.max, LIMITS.min, LIMITS.tiny, LIMITS.max / 2))]


@settings(deadline=None, max_examples=200)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
        elements=st.sampled_from([*EXTREMES, np.nan, np.inf, -np.inf]) | st.sampled_from(EXTREMES),
        fill=st.sampled_from(EXTREMES),
    ),
    st.booleans(),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_values_that_overflow_or_are_not_finite_have_the_same_result_or_error(
    maps: NDArray[np.float32], relu: bool, height: int, width: int
) -> None:
    def outcome(compute: Callable[..., NDArray[np.float32]]) -> bytes | str:
        try:
            return compute(maps, relu, height, width).tobytes()
        except ValueError as error:
            return str(error)

    assert outcome(_core.heatmaps) == outcome(in_sequence)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_rows(relu: bool, threads: int) -> None:
    maps = floats(9, 7, 7)
    result = _core.heatmaps(maps, relu, 224, 224, threads)
    assert result.tobytes() == in_sequence(maps, relu, 224, 224).tobytes()


def test_a_map_without_positive_values_is_constant_after_the_relu() -> None:
    maps = -np.abs(floats(2, 3, 3)) - np.float32(0.1)
    assert (_core.heatmaps(maps, True, 8, 8) == 0).all()
    assert _core.heatmaps(maps, False, 8, 8).max() == 1


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_an_error(relu: bool, bad: float) -> None:
    maps = floats(3, 7, 7)
    maps[1, 3, 3] = bad
    with pytest.raises(ValueError, match=r"^maps\[1\] holds NaN or infinity$"):
        _core.heatmaps(maps, relu, 56, 56)
