"""Tests of the normalisation of pixels against loops, and against torchvision's order of operations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seewhy import _core
from support.kernel_calls import floats, pixels


def literal(
    image: NDArray[np.uint8], mean: NDArray[np.float32], std: NDArray[np.float32], reverse: bool
) -> NDArray[np.float64]:
    count, height, width, channels = image.shape
    result = np.empty((count, channels, height, width))
    for n in range(count):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    pixel = float(image[n, y, x, channels - 1 - c if reverse else c])
                    result[n, c, y, x] = (pixel / 255.0 - float(mean[c])) / float(std[c])
    return result


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, most) for most in (3, 7, 9, 5)]), reverse=st.booleans(), seed=st.integers(0, 2**32)
)
def test_it_follows_the_formula(shape: tuple[int, int, int, int], reverse: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, shape, np.uint8)
    mean = random.random(shape[3], np.float32)
    std = random.uniform(0.1, 1, shape[3]).astype(np.float32)
    exact = literal(image, mean, std, reverse)
    # There are three roundings; the errors of the first two, of values up to 1, are divided by std.
    tolerance = 3 * np.finfo(np.float32).eps / float(std.min())
    np.testing.assert_allclose(_core.normalize(image, mean, std, reverse), exact, rtol=1e-6, atol=tolerance)


def test_every_byte_has_the_bits_of_float32_arithmetic() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    expected = (image.astype(np.float32) / np.float32(255) - mean) / std
    np.testing.assert_array_equal(_core.normalize(image, mean, std), expected.transpose(0, 3, 1, 2))


def test_it_has_the_bits_of_torchvision() -> None:
    torch = pytest.importorskip("torch")
    image, mean, std = pixels(2, 5, 7, 3), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    # The steps of ToTensor and Normalize, without torchvision.
    expected = torch.from_numpy(image).permute(0, 3, 1, 2).to(torch.float32).div(255)
    expected = expected.sub(torch.tensor(mean).view(-1, 1, 1)).div(torch.tensor(std).view(-1, 1, 1))
    result = _core.normalize(image, np.array(mean, np.float32), np.array(std, np.float32))
    np.testing.assert_array_equal(result, expected.numpy())


def test_reversing_channels_reverses_the_pixels_but_not_mean_and_std() -> None:
    image, mean, std = pixels(2, 3, 4, 3), floats(3), np.array([0.5, 1.0, 2.0], np.float32)
    backwards = np.ascontiguousarray(image[..., ::-1])
    np.testing.assert_array_equal(_core.normalize(image, mean, std, True), _core.normalize(backwards, mean, std))


def test_one_pixel() -> None:
    half, one = np.array([0.5], np.float32), np.array([1.0], np.float32)
    assert _core.normalize(np.array([[[[255]]]], np.uint8), half, one).item() == 0.5
