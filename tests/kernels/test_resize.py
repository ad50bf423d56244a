"""Tests of resizing against Pillow: the bytes are the same for every size, filter and crop.

Pillow resizes one axis at a time here, because newer versions start with the other axis for some sizes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from seewhy import _core
from support.kernel_calls import pixels

FILTERS = ["box", "bilinear", "hamming", "bicubic", "lanczos"]
Crop = tuple[tuple[int, int], tuple[int, int]]


def by_pillow(rgbx: NDArray[np.uint8], filter_: str, height: int, width: int, crop: Crop) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(rgbx[..., :3]))
    (top, bottom), (left, right) = crop
    resample = Image.Resampling[filter_.upper()]
    resized = image.resize((width, image.height), resample).resize((width, height), resample)
    return np.asarray(resized.crop((left, top, right, bottom)))


@st.composite
def ranges(draw: st.DrawFn, length: int) -> tuple[int, int]:
    first = draw(st.integers(0, length - 1))
    return first, draw(st.integers(first + 1, length))


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int, int, Crop]:
    sizes = st.one_of(st.integers(1, 12), st.integers(1, 300))
    in_height, in_width, height, width = (draw(sizes) for _ in range(4))
    return in_height, in_width, height, width, (draw(ranges(height)), draw(ranges(width)))


def edges(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return black and white pixels, at which filters with negative parts overshoot."""
    return np.where(pixels(*shape, seed=seed) < 128, 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=150)
@given(case=cases(), filter_=st.sampled_from(FILTERS), extreme=st.booleans(), seed=st.integers(0, 2**32))
@example((1, 1, 1, 1, ((0, 1), (0, 1))), "bilinear", False, 0)
@example((1, 1, 250, 300, ((0, 250), (0, 300))), "bicubic", False, 0)
@example((480, 640, 256, 341, ((16, 240), (58, 282))), "bicubic", True, 0)
@example((300, 2, 2, 300, ((0, 2), (0, 300))), "lanczos", True, 0)
@example((20, 30, 20, 30, ((0, 20), (0, 30))), "lanczos", True, 0)
def test_the_bytes_are_those_of_pillow(
    case: tuple[int, int, int, int, Crop], filter_: str, extreme: bool, seed: int
) -> None:
    in_height, in_width, height, width, crop = case
    shape = (in_height, in_width, 4)
    image = edges(seed, *shape) if extreme else pixels(*shape, seed=seed)
    found = _core.resize(image, filter_, height, width, *crop)
    np.testing.assert_array_equal(found, by_pillow(image, filter_, height, width, crop))


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(
    ("source", "result"),
    [((3, 50_000), (2, 3)), ((50_000, 3), (3, 2)), ((2, 3), (40_000, 5)), ((3, 2), (5, 40_000)), ((7, 9000), (1, 1))],
)
def test_extreme_ratios(filter_: str, source: tuple[int, int], result: tuple[int, int]) -> None:
    image, crop = edges(1, *source, 4), ((0, result[0]), (0, result[1]))
    found = _core.resize(image, filter_, *result, *crop)
    np.testing.assert_array_equal(found, by_pillow(image, filter_, *result, crop))


@settings(deadline=None, max_examples=60)
@given(case=cases(), filter_=st.sampled_from(FILTERS), seed=st.integers(0, 2**32))
def test_the_needed_rows_suffice(case: tuple[int, int, int, int, Crop], filter_: str, seed: int) -> None:
    in_height, in_width, height, width, crop = case
    image = pixels(in_height, in_width, 4, seed=seed)
    first, last = _core.resize_source(filter_, in_height, height, crop[0])
    assert 0 <= first < last <= in_height
    part = image[first:last].copy()
    found = _core.resize(part, filter_, height, width, *crop, top=first, whole_height=in_height)
    np.testing.assert_array_equal(found, _core.resize(image, filter_, height, width, *crop))
    for rows, top in ((part[1:], first + 1), (part[:-1], first)):
        if len(rows):
            with pytest.raises(ValueError, match="pixels must hold the rows"):
                _core.resize(rows, filter_, height, width, *crop, top=top, whole_height=in_height)


def test_threads_do_not_disturb_each_other() -> None:
    images = [pixels(90, 70, 4, seed=seed) for seed in range(8)]
    alone = [_core.resize(image, "bicubic", 50, 40, (5, 45), (3, 37)) for image in images]
    with ThreadPoolExecutor(8) as threads:
        together = threads.map(lambda image: _core.resize(image, "bicubic", 50, 40, (5, 45), (3, 37)), images * 20)
        for index, found in enumerate(together):
            np.testing.assert_array_equal(found, alone[index % 8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": "cubic"}, "filter must be one of box, bilinear, hamming, bicubic, lanczos, not cubic"),
        ({"height": 0}, "height must be from 1 to 2147483647 before and after resizing, not 0"),
        ({"width": -3}, "width must be from 1 to 2147483647 before and after resizing, not -3"),
        ({"whole_height": 2**31}, "height must be from 1 to 2147483647 before and after resizing, not 2147483648"),
        ({"rows": (0, 5)}, r"the crop of height 4 must be a range in it, not \(0, 5\)"),
        ({"columns": (2, 2)}, r"the crop of width 5 must be a range in it, not \(2, 2\)"),
        ({"rows": (-1, 2)}, r"the crop of height 4 must be a range in it, not \(-1, 2\)"),
        ({"top": -(2**62)}, "pixels must hold the rows"),
        ({"pixels": pixels(8, 6, 3)}, r"pixels must have shape \(H, W, 4\), not \(8, 6, 3\)"),
        ({"pixels": pixels(8, 0, 4)}, "may be empty in the first axis only"),
        ({"pixels": pixels(0, 6, 4)}, "height must be from 1 to 2147483647 before and after resizing, not 0"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    arguments = {"pixels": pixels(8, 6, 4), "filter": "box", "height": 4, "width": 5, "rows": (0, 4), "columns": (0, 5)}
    with pytest.raises(ValueError, match=message):
        _core.resize(**{**arguments, **change})  # type: ignore[arg-type]


def test_pixels_of_a_pil_image_are_not_copied() -> None:
    if not hasattr(Image.Image, "__arrow_c_array__"):
        pytest.skip("this version of Pillow gives no access to its memory")
    rgb = pixels(7, 5, 3)
    image = Image.fromarray(rgb)
    found = _core.arrow_pixels(image.__arrow_c_array__()[1], 7, 5)
    assert found.shape == (7, 5, 4) and not found.flags.writeable
    image.putpixel((2, 3), (9, 8, 7))
    rgb[3, 2] = (9, 8, 7)
    np.testing.assert_array_equal(found[..., :3], rgb)
    del image  # the view keeps the memory
    np.testing.assert_array_equal(found[..., :3], rgb)


def test_capsules_that_do_not_hold_the_pixels() -> None:
    with pytest.raises(TypeError, match="array must be a capsule named arrow_array, not int"):
        _core.arrow_pixels(1, 2, 2)
    if not hasattr(Image.Image, "__arrow_c_array__"):
        pytest.skip("this version of Pillow gives no access to its memory")
    schema, array = Image.new("RGB", (5, 7)).__arrow_c_array__()
    with pytest.raises(TypeError, match="not PyCapsule"):
        _core.arrow_pixels(schema, 7, 5)
    for height, width in ((7, 6), (8, 5), (2**61, 2**3), (1, 34)):
        with pytest.raises(ValueError, match="must hold four bytes without nulls for each"):
            _core.arrow_pixels(array, height, width)
    with pytest.raises(ValueError, match="height and width must be at least 1"):
        _core.arrow_pixels(array, 0, 5)
    with pytest.raises(ValueError, match="must hold four bytes"):
        _core.arrow_pixels(Image.new("L", (5, 7)).__arrow_c_array__()[1], 7, 5)
