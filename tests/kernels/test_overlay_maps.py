"""Tests of overlays made directly from maps: bytes and errors equal those of the single kernels in sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats, pixels

ALPHAS = st.sampled_from([0.5, 0.0, 1.0, 0.3, 0.4]) | st.floats(0, 1)
SIZES = st.integers(1, 9)
# Values of any magnitude, so that differences are rounded, vanish or overflow.
ANY = st.floats(width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
CLOSE = st.floats(1, 1 + 2**-20, width=32)


def separately(
    images: NDArray[np.uint8], maps: NDArray[np.float32], palette: NDArray[np.uint8], alpha: float, relu: bool
) -> NDArray[np.uint8]:
    positive = np.maximum(maps, np.float32(0)) if relu else maps
    heat = _core.minmax(_core.upsample(positive, *images.shape[1:3]))
    return _core.overlay(images, heat, palette, alpha)


def same(maps: NDArray[np.float32], height: int, width: int, alpha: float, relu: bool) -> None:
    """Compare the bytes, or the error messages."""
    images, palette = pixels(len(maps), height, width, 3), pixels(256, 3, seed=1)
    arguments: Any = (images, maps, palette, alpha, relu)
    try:
        expected = separately(*arguments)
    except ValueError as error:
        with pytest.raises(ValueError) as found:
            _core.overlay_maps(*arguments)
        assert str(found.value) == str(error)
    else:
        np.testing.assert_array_equal(_core.overlay_maps(*arguments), expected)


@pytest.mark.parametrize("elements", [ANY, FINITE, CLOSE], ids=["any", "finite", "close"])
def test_any_map_gives_the_same_as_the_single_kernels(elements: st.SearchStrategy[float]) -> None:
    @settings(deadline=None, max_examples=150)
    @given(
        maps=arrays(np.float32, st.tuples(st.integers(1, 3), SIZES, SIZES), elements=elements),
        size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
        alpha=ALPHAS,
        relu=st.booleans(),
    )
    @example(maps=np.array([[[3e38, -3e38], [-3e38, 3e38]]], np.float32), size=(5, 7), alpha=0.5, relu=False)
    @example(maps=np.array([[[-np.inf, 1]], [[np.nan, 1]]], np.float32), size=(4, 4), alpha=0.5, relu=True)
    @example(maps=np.full((1, 7, 7), -2, np.float32), size=(9, 9), alpha=0.5, relu=True)
    def check(maps: NDArray[np.float32], size: tuple[int, int], alpha: float, relu: bool) -> None:
        with np.errstate(all="ignore"):
            same(maps, *size, alpha, relu)

    check()


@pytest.mark.parametrize(
    "sizes", [(7, 7, 224, 224), (14, 14, 225, 223), (7, 5, 3, 2600), (30, 20, 7, 9), (50, 50, 50, 50)]
)
@pytest.mark.parametrize("alpha", [0.5, 0.37])
def test_usual_and_odd_sizes(sizes: tuple[int, int, int, int], alpha: float) -> None:
    h, w, height, width = sizes
    for relu in (False, True):
        same(floats(3, h, w), height, width, alpha, relu)


def test_skipped_lines_have_no_extremes() -> None:
    """The search for extremes skips most lines. It must find them even if values differ only by rounding.

    Such maps have few different values after upsampling, so a missed extreme would change many entries.
    """
    random = np.random.default_rng(0)
    for exponent in range(-6, 25, 2):
        ends = np.float32(1) + random.integers(-3, 4, (200, 3, 3)).astype(np.float32) * np.float32(2.0**-exponent)
        same(ends.astype(np.float32), 33, 29, 0.5, False)


def test_the_lowest_value_gets_the_first_colour_and_the_highest_the_last() -> None:
    palette = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    drawn = _core.overlay_maps(np.zeros((4, 64, 48, 3), np.uint8), floats(4, 7, 6), palette, 1.0)
    assert (drawn.min(axis=(1, 2, 3)) == 0).all() and (drawn.max(axis=(1, 2, 3)) == 255).all()


def test_a_constant_map_gets_the_first_colour() -> None:
    images, palette = pixels(2, 5, 6, 3), pixels(256, 3, seed=1)
    maps = np.array([[[-1, -2]], [[3, 3]]], np.float32)
    drawn = _core.overlay_maps(images, maps, palette, 1.0, relu=True)
    assert (drawn == palette[0]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_are_an_error_that_names_the_map(bad: float) -> None:
    maps = floats(4, 7, 7)
    maps[2, 3, 3] = maps[3, 0, 0] = bad
    with pytest.raises(ValueError, match=r"^maps\[2\] holds NaN or infinity$"):
        _core.overlay_maps(pixels(4, 20, 20, 3), maps, pixels(256, 3), 0.5, relu=True)
