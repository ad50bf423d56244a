"""Preprocessing of a function that turns images into arrays, found by running it on test images.

The classes that prepare images differ in their settings and in what they do with them. Running one and comparing its
pixels with the engine's needs no knowledge of either, and proves that the model file records the same preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.contract.constants import CROP_ROUNDINGS, INTERPOLATIONS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError
from seewhy.images.resizing import resize_and_crop, resized_size
from seewhy_export._shared.messages import one_line

Process = Callable[[Image.Image], Any]

# (width, height) of test images: wider, taller and larger than usual inputs, and smaller.
_SIZES = ((351, 260), (97, 130), (64, 64))
# Largest difference in grey levels. PIL images give equal pixels; resizing of tensors rounds in another order, which
# moves pixels of random noise by up to two levels. A wrong size, filter or crop moves them by some twenty.
_TOLERANCE = 2.01


class UnmeasurableError(ValueError):
    """A function does something to images that a model file cannot record. The text says what."""


def measure_preprocessing(
    process: Process, interpolations: Sequence[str] = INTERPOLATIONS, mode: str = "RGB"
) -> tuple[Preprocessing, tuple[int, int]]:
    """Find the preprocessing that a function applies to images.

    Args:
        process: Function from an image to its array, float (C, H, W) with C of 1 or 3, or to a dict that holds the
            arrays of a batch of one image as `pixel_values`, as the image processors of transformers return it.
        interpolations: Interpolations to try.
        mode: Mode of the images that the function takes: `RGB` or `L`.

    Returns:
        The preprocessing, and (H, W) of the arrays in pixels. The engine's pixels of all test images are equal to the
        function's, or within two grey levels if the function resizes tensors instead of PIL images.

    Raises:
        UnmeasurableError: If the function fails, the arrays of images of different sizes differ in shape, or no
            preprocessing of the file contract gives the same pixels.
    """
    images = [_test_image(size).convert(mode) for size in _SIZES]
    arrays = [_array(process, image) for image in images]
    again = _array(process, images[0])
    if again.shape != arrays[0].shape or not np.array_equal(again, arrays[0]):
        raise UnmeasurableError("it is random, as transforms for training are; give the one for evaluation")
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise UnmeasurableError(f"its arrays have different shapes for different images: {shapes[0]}, {shapes[1]}")
    if len(shapes[0]) != 3 or shapes[0][0] not in (1, 3):
        raise UnmeasurableError(f"its arrays have the shape {shapes[0]} instead of (1 or 3, height, width)")
    size = shapes[0][1], shapes[0][2]
    colors = measure_colors(process, mode)
    pixels = [_pixels(array, colors) for array in arrays]
    for how, interpolation in product(_plausible_ways(process, colors, size, mode), interpolations):
        candidate = replace(how, interpolation=interpolation)
        if all(map(partial(_agrees, how=candidate, size=size), images, pixels)):
            return _with_crop_rounding(process, candidate, size, mode), size
    raise UnmeasurableError("it resizes or crops images, or changes pixels, in a way that a model file cannot record")


def measure_colors(process: Process, mode: str = "RGB") -> Preprocessing:
    """Find the mean, the standard deviation and the order of the channels that a function applies.

    Args:
        process: As in `measure_preprocessing`.
        mode: As in `measure_preprocessing`.

    Returns:
        A preprocessing with these values, and with the default for all others.

    Raises:
        UnmeasurableError: If the function fails, or white pixels do not become larger numbers than black ones.
    """

    def output(color: tuple[int, int, int]) -> NDArray[np.float64]:
        array = _array(process, Image.new("RGB", (64, 64), color).convert(mode))
        center: NDArray[np.float64] = array[:, array.shape[1] // 2, array.shape[2] // 2]
        return center

    black, white, red = output((0, 0, 0)), output((255, 255, 255)), output((255, 0, 0))
    if not (np.isfinite(black).all() and np.isfinite(white).all() and (white > black).all()):
        raise UnmeasurableError("white pixels do not become larger numbers than black ones")
    # The arrays are float32. Seven digits behind the point restore the decimal numbers of the settings.
    std = tuple(round(float(value), 7) for value in 1 / (white - black))
    mean = tuple(round(float(value), 7) + 0.0 for value in -black / (white - black))  # + 0.0: no negative zero
    reversed_channels = len(black) == 3 and red[2] - black[2] > red[0] - black[0]
    return Preprocessing(mean=mean, std=std, channel_order="BGR" if reversed_channels else "RGB")


def source_preprocessing(
    spec: str,
    process: Process,
    interpolations: Sequence[str] = INTERPOLATIONS,
    resize_given: bool = False,
    channels: int = 3,
) -> tuple[Preprocessing | None, tuple[int, int] | None]:
    """Return the preprocessing of a source's own function, and the size of its arrays.

    Args:
        spec: Source to name in error messages.
        process: As in `measure_preprocessing`.
        interpolations: Interpolations to try.
        resize_given: True if the user chooses the resize mode, so that the function's own need not be recorded.
        channels: Number of channels that the network takes.

    Returns:
        The preprocessing, or, if it cannot be recorded and the user chooses the resize mode, that of the colours, or
        None if the function is not for this number of channels. And (H, W) of the arrays in pixels, or None.

    Raises:
        ExportError: If a model file cannot record what the function does.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        try:
            found, size = measure_preprocessing(process, interpolations, mode)
        except UnmeasurableError:
            if not resize_given:
                raise
            found = replace(measure_colors(process, mode), interpolation=interpolations[0], crop=False)
            height, width = _array(process, _test_image(_SIZES[-1]).convert(mode)).shape[1:]
            size = height, width
        return found if len(found.mean) == channels else None, size
    except UnmeasurableError as error:
        if channels != 3:
            return None, None
        raise ExportError(
            f"{spec}: its preprocessing cannot be recorded in a model file: {error}; choose another with "
            f"--resize squash or --resize shorter-side"
        ) from error


def _array(process: Process, image: Image.Image) -> NDArray[np.float64]:
    """Return the array that a function of another library makes of an image."""
    try:
        result = process(image)
        return np.asarray(result["pixel_values"][0] if isinstance(result, Mapping) else result, np.float64)
    except Exception as error:
        raise UnmeasurableError(f"it fails with {one_line(error)}") from error


def _test_image(size: tuple[int, int]) -> Image.Image:
    """Return an image of random pixels."""
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _pixels(array: NDArray[np.float64], colors: Preprocessing) -> NDArray[np.float64]:
    """Return an array's pixels as float64 (H, W, C) from 0 to 255, in RGB order."""
    mean, std = (np.array(values)[:, None, None] for values in (colors.mean, colors.std))
    pixels: NDArray[np.float64] = 255 * (array * std + mean)
    return (pixels[::-1] if colors.channel_order == "BGR" else pixels).transpose(1, 2, 0)


def _plausible_ways(process: Process, colors: Preprocessing, size: tuple[int, int], mode: str) -> list[Preprocessing]:
    """Return preprocessings whose resized images have nearly the size of the function's."""
    width, height = 128, 96
    x, y = np.meshgrid(2.0 * np.arange(width), 2.0 * np.arange(height))  # grey levels that need no rounding
    across, down = (_pixels(_array(process, _grey(ramp).convert(mode)), colors).mean(2) for ramp in (x, y))
    resized = width * _slope(x) / _slope(across), height * _slope(y.T) / _slope(down.T)
    if not np.isfinite(resized).all():
        return []
    margin = 2 + max(resized) / 16  # the slope of a few rounded grey levels is not exact
    ways = [
        replace(colors, resize="none", crop=True),
        replace(colors, resize="squash", crop=False),
        *(
            replace(colors, resize=mode, size=length, crop=True)
            for mode in ("shorter-side", "squash")
            for length in range(max(1, math.floor(resized[1] - margin)), math.ceil(resized[1] + margin))
        ),
    ]
    sizes = [resized_size((width, height), how, size[::-1]) for how in ways]
    return [how for how, own in zip(ways, sizes, strict=True) if np.abs(np.subtract(own, resized)).max() < margin]


def _grey(values: NDArray[np.float64]) -> Image.Image:
    """Return an RGB image of these grey levels."""
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _slope(values: NDArray[np.float64]) -> float:
    """Return the slope of values along their rows, in their middle, which a filter's edges and padding do not reach."""
    rows, columns = (slice(length // 4, length - length // 4) for length in values.shape)
    middle = values[rows, columns].mean(0)
    return float(np.polyfit(np.arange(len(middle)), middle, 1)[0]) or np.nan


def _agrees(image: Image.Image, expected: NDArray[np.float64], how: Preprocessing, size: tuple[int, int]) -> bool:
    """Return True if the engine's pixels are the expected ones for one of the roundings of the crop."""
    views = (_view(image, replace(how, crop_rounding=rounding), size, expected) for rounding in CROP_ROUNDINGS)
    return any(bool(np.abs(view - expected).max() <= _TOLERANCE) for view in views)


def _view(
    image: Image.Image, how: Preprocessing, size: tuple[int, int], like: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the engine's resized and cropped pixels, in grey if the array has one channel."""
    image = image.convert("L" if like.shape[2] == 1 else "RGB")
    view, _ = resize_and_crop(image, how, size, "the test image")
    return np.asarray(view, np.float64).reshape(like.shape)


def _with_crop_rounding(process: Process, found: Preprocessing, size: tuple[int, int], mode: str) -> Preprocessing:
    """Return the preprocessing with the rounding of its crop, if an image shows which it is."""
    if found.resize == "squash":
        length = found.size
        if length is None or (length >= max(size) and (length - size[0]) % 4 != 3 != (length - size[1]) % 4):
            return found  # both roundings start every crop at the same pixel
        width = height = length
    else:
        # Crop the middle of an image that is not resized. (length - crop) / 2 lies between two pixels, and the even
        # one of them is the larger.
        width = found.size or size[1]
        height = next(h for h in range(max(width, size[0]), 2 * max(width, *size) + 8) if (h - size[0]) % 4 == 3)
    image = _test_image((width, height)).convert(mode)
    expected = _pixels(_array(process, image), found)
    for rounding in CROP_ROUNDINGS:
        exact = replace(found, crop_rounding=rounding)
        if np.abs(_view(image, exact, size, expected) - expected).max() <= _TOLERANCE:
            return exact
    raise UnmeasurableError("its crop starts at another pixel than the crops that a model file can record")
