"""Tests of bilinear upsampling against the definition, point by point, and against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats

SIZES = st.integers(1, 13)
# Each of the two directions has three roundings of a difference of at most twice the largest value. The tolerance also
# allows for the rounded share.
TOLERANCE = 10 * float(np.finfo(np.float32).eps)


def literal(maps: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    count, in_height, in_width = maps.shape
    result = np.empty((count, height, width))
    for n in range(count):
        for y in range(height):
            for x in range(width):
                v = min(max((y + 0.5) * in_height / height - 0.5, 0.0), in_height - 1.0)
                u = min(max((x + 0.5) * in_width / width - 0.5, 0.0), in_width - 1.0)
                top, left = math.floor(v), math.floor(u)
                bottom, right = min(top + 1, in_height - 1), min(left + 1, in_width - 1)
                a, b = v - top, u - left
                result[n, y, x] = (
                    (1 - a) * (1 - b) * float(maps[n, top, left])
                    + (1 - a) * b * float(maps[n, top, right])
                    + a * (1 - b) * float(maps[n, bottom, left])
                    + a * b * float(maps[n, bottom, right])
                )
    return result


@settings(deadline=None, max_examples=80)
@given(count=st.integers(1, 3), h=SIZES, w=SIZES, height=SIZES, width=SIZES, seed=st.integers(0, 2**32))
def test_it_follows_the_definition(count: int, h: int, w: int, height: int, width: int, seed: int) -> None:
    maps = floats(count, h, w, seed=seed)
    scale = float(np.abs(maps).max())
    result = _core.upsample(maps, height, width)
    np.testing.assert_allclose(result, literal(maps, height, width), rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize(
    "sizes", [(7, 7, 224, 224), (13, 15, 227, 511), (1, 5, 9, 3), (14, 14, 14, 14), (30, 20, 7, 9)]
)
def test_it_agrees_with_pytorch(sizes: tuple[int, int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    h, w, height, width = sizes
    maps = floats(2, h, w)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None].double(), (height, width), mode="bilinear", align_corners=False
    )
    scale = float(np.abs(maps).max())
    result = _core.upsample(maps, height, width)
    np.testing.assert_allclose(result, expected[:, 0].numpy(), rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-42, 3e38, 1 / 3])
def test_a_constant_map_stays_exactly_constant(value: float) -> None:
    maps = np.full((1, 7, 5), value, np.float32)
    assert np.unique(_core.upsample(maps, 61, 53)) == np.float32(value)


def test_the_same_size_changes_nothing() -> None:
    maps = floats(2, 9, 11)
    np.testing.assert_array_equal(_core.upsample(maps, 9, 11), maps)


def test_one_pixel_fills_the_result() -> None:
    np.testing.assert_array_equal(_core.upsample(np.array([[[2.5]], [[-1]]], np.float32), 3, 4)[:, 2, 3], [2.5, -1])


def test_two_pixels_by_hand() -> None:
    # The centres are at -0.25, 0.25, 0.75 and 1.25 of the source; the outer two are clamped.
    np.testing.assert_array_equal(_core.upsample(np.array([[[0, 4]]], np.float32), 1, 4), [[[0, 1, 3, 4]]])


def test_maps_of_a_batch_do_not_affect_each_other() -> None:
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1] = 1
    result = _core.upsample(maps, 11, 7)
    assert (result[0] == 0).all() and (result[1] == 1).all() and (result[2] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_are_never_hidden(bad: float) -> None:
    maps = floats(2, 3, 3)
    maps[1, 1, 1] = bad
    result = _core.upsample(maps, 12, 12)
    assert np.isfinite(result[0]).all()
    assert not np.isfinite(result[1, 4:8, 4:8]).any()
