"""Tests of the overlay kernel against exact rounding and the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import heat, pixels

GREY = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)


def entries(heatmaps: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.rint(np.clip(heatmaps, 0, 1) * np.float32(255)).astype(np.intp)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11)),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_colours_are_rounded_exactly(size: tuple[int, int, int], alpha: float, seed: int) -> None:
    images, palette = pixels(*size, 3, seed=seed), pixels(256, 3, seed=seed + 1)
    heatmaps = heat(*size, seed=seed) * np.float32(1.4) - np.float32(0.2)
    result = _core.overlay(images, heatmaps, palette, alpha)
    colours = palette[entries(heatmaps)].astype(np.float32)
    expected = np.rint(np.float32(alpha) * colours + np.float32(1 - alpha) * images.astype(np.float32))
    np.testing.assert_array_equal(result, expected)

    # The error is at most half a step, plus four float32 roundings of values up to 255.
    step = 0.5 + 1e-4
    assert np.abs(entries(heatmaps) - 255 * np.clip(heatmaps.astype(np.float64), 0, 1)).max() <= step
    for index in np.ndindex(*size):
        colour = palette[entries(heatmaps)[index]].astype(np.float64)
        exact = alpha * colour + (1 - alpha) * images[index].astype(np.float64)
        assert np.abs(result[index] - exact).max() <= step


def test_alpha_0_gives_the_image_and_alpha_1_the_colour() -> None:
    images, heatmaps, palette = pixels(2, 5, 7, 3), heat(2, 5, 7), pixels(256, 3, seed=1)
    np.testing.assert_array_equal(_core.overlay(images, heatmaps, palette, 0), images)
    np.testing.assert_array_equal(_core.overlay(images, heatmaps, palette, 1), palette[entries(heatmaps)])


def test_every_palette_entry_is_used() -> None:
    heatmaps = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(1, 16, 16)
    result = _core.overlay(np.zeros((1, 16, 16, 3), np.uint8), heatmaps, GREY, 1.0)
    np.testing.assert_array_equal(result[0, :, :, 1].ravel(), np.arange(256))


def test_every_pair_of_colours_at_one_half() -> None:
    # Halves are exact in float32 and are rounded to even.
    colours, image = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    heatmaps = (colours / 255).astype(np.float32)[None]
    images = image.astype(np.uint8)[None, :, :, None].repeat(3, axis=3)
    expected = [[round((colour + pixel) / 2) for pixel in range(256)] for colour in range(256)]
    np.testing.assert_array_equal(_core.overlay(images, heatmaps, GREY, 0.5)[0, :, :, 2], expected)


@pytest.mark.parametrize("alpha", [0, 1e-9, 0.1, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.5 + 1e-7, 0.6, 0.7, 0.75, 0.99, 1])
def test_every_pair_of_colours_has_the_bits_of_float32_arithmetic(alpha: float) -> None:
    colours, image = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    share, rest = np.float32(alpha), np.float32(1 - alpha)
    expected = np.rint(share * colours.astype(np.float32) + rest * image.astype(np.float32))
    images = image.astype(np.uint8)[None, :, :, None].repeat(3, axis=3)
    result = _core.overlay(images, (colours / 255).astype(np.float32)[None], GREY, alpha)
    for channel in range(3):
        np.testing.assert_array_equal(result[0, :, :, channel], expected)


@pytest.mark.parametrize(("value", "entry"), [(-0.1, 0), (-np.inf, 0), (-0.0, 0), (1.0001, 255), (np.inf, 255)])
def test_heat_outside_0_to_1_is_clamped(value: float, entry: int) -> None:
    heatmaps = np.full((1, 1, 1), value, np.float32)
    assert _core.overlay(np.zeros((1, 1, 1, 3), np.uint8), heatmaps, GREY, 1.0)[0, 0, 0, 0] == entry


@pytest.mark.parametrize("size", [(1, 1), (9, 11), (300, 300)])
def test_nan_is_an_error_that_names_the_map(size: tuple[int, int]) -> None:
    for place in (0, size[0] * size[1] // 2, size[0] * size[1] - 1):
        heatmaps = heat(4, *size)
        heatmaps[1].flat[place] = heatmaps[3].flat[0] = np.nan
        with pytest.raises(ValueError, match=r"^heatmaps\[1\] holds NaN$"):
            _core.overlay(pixels(4, *size, 3), heatmaps, GREY, 0.4)
