"""Resize and crop images to the model's input size, and record where the result lies on the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import core as pillow_core  # type: ignore[attr-defined]  # it has no public name

from seewhy._core import arrow_pixels, resize, resize_source
from seewhy._shared.arrays import Bytes
from seewhy.contract.constants import MAX_PIXELS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ImageError

# Size in bytes of the strips in which an image is resized whose pixels are not in one piece of memory.
_STRIP_BYTES = 2**20


# Width in pixels up to which images are resized here.
_WIDEST = 2**16


@dataclass(frozen=True)
class Placement:
    """Position of the model's view on the whole image.

    The point (x, y) of the view is at ((x + left) * scale_x, (y + top) * scale_y) of the whole image, in pixels.
    """

    left: float
    """Left edge of the view, in pixels of the resized image; negative if the view is padded."""
    top: float
    """Top edge of the view, in pixels of the resized image; negative if the view is padded."""
    scale_x: float
    """Width of the whole image, divided by that of the resized image."""
    scale_y: float
    """Height of the whole image, divided by that of the resized image."""


def resize_and_crop(
    image: Image.Image,
    preprocessing: Preprocessing,
    size: tuple[int, int],
    name: str,
    original_size: tuple[int, int] | None = None,
) -> tuple[Bytes, Placement]:
    """Resize and crop an image, to the same pixels as torchvision's Resize and CenterCrop on a PIL image.

    Only the pixels inside the crop are computed.

    Args:
        image: The image, of mode RGB or L (grey).
        preprocessing: Preprocessing of the model file.
        size: (height, width) of the model's input, in pixels.
        name: Name of the image in error messages.
        original_size: (width, height) of the whole image, if `image` was decoded at a smaller size.

    Returns:
        The model's view, uint8 of shape (H, W, 3), or (H, W) for grey, and its position on the whole image.

    Raises:
        ImageError: If the result does not have the model's input size, or resizing would need too much memory.
    """
    height, width = size
    original_size = image.size if original_size is None else original_size
    resized = resized_size(original_size, preprocessing, (width, height))
    if resized[0] * resized[1] > MAX_PIXELS:
        raise ImageError(
            f"{name}: {_text(original_size)} pixels would be resized to {_text(resized)}; crop the image first"
        )
    left = top = 0
    if preprocessing.crop:
        left, top = (
            _crop_start(length, cropped, preprocessing.crop_rounding)
            for length, cropped in zip(resized, (width, height), strict=True)
        )
    elif resized != (width, height):
        raise ImageError(
            f"{name}: {_text(resized)} pixels after preprocessing, but the model takes {width}x{height} and its "
            f"preprocessing does not crop; resize the image first"
        )
    crop = (left, top, left + width, top + height)
    if resized == image.size:
        view = np.array(image.crop(crop))
    elif image.mode != "RGB" or preprocessing.interpolation == "nearest" or _is_left_to_pillow(image, resized):
        filter_ = Image.Resampling[preprocessing.interpolation.upper()]
        view = np.array(image.resize(resized, filter_).crop(crop))
    else:
        view = _resized(image, preprocessing.interpolation, resized, crop)
    return view, Placement(left, top, original_size[0] / resized[0], original_size[1] / resized[1])


def _is_left_to_pillow(image: Image.Image, size: tuple[int, int]) -> bool:
    """Return True for shapes of images that only Pillow resizes.

    There are versions of Pillow that resize the columns of some images before their rows. Values between are rounded,
    so the order matters. Pillow 13 starts with the columns if the height shrinks by more than twice as many pixels as
    the width, and 12.3 if the image is more than a hundred times as high as it is wide. For very wide images, the
    kernel would need several times the memory of the image.
    """
    if image.width > _WIDEST:
        return True
    less_width, less_height = image.width - size[0], image.height - size[1]
    return less_height > 0 and (less_height >= 2 * less_width or image.height > 100 * image.width)


def _resized(image: Image.Image, interpolation: str, size: tuple[int, int], crop: tuple[int, int, int, int]) -> Bytes:
    """Return the pixels of an RGB image that is resized to (width, height) and cropped as `Image.crop` does."""
    left, top, right, bottom = crop
    columns, rows = (max(left, 0), min(right, size[0])), (max(top, 0), min(bottom, size[1]))
    pixels = _pixels_in_place(image)
    if pixels is not None:
        view = resize(pixels, interpolation, size[1], size[0], rows, columns)
    else:
        view = np.empty((rows[1] - rows[0], columns[1] - columns[0], 3), np.uint8)
        step = max(1, _STRIP_BYTES * size[1] // (4 * image.width * image.height))
        for first in range(*rows, step):
            strip_rows = (first, min(first + step, rows[1]))
            source = resize_source(interpolation, image.height, size[1], strip_rows)
            view[first - rows[0] : strip_rows[1] - rows[0]] = resize(
                _pixels(image.crop((0, source[0], image.width, source[1]))),
                interpolation,
                size[1],
                size[0],
                strip_rows,
                columns,
                source[0],
                image.height,
            )
    if view.shape[:2] == (bottom - top, right - left):
        return view
    padded = np.zeros((bottom - top, right - left, 3), np.uint8)
    padded[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = view
    return padded


def _pixels_in_place(image: Image.Image) -> Bytes | None:
    """Return a view of an RGB image's memory, uint8 of shape (H, W, 4), or None if Pillow cannot give access to it.

    Pillow 11.2 is the first version that can. It keeps images of more than 16 MiB in several pieces of memory.
    """
    # With another alignment, there are bytes between the rows.
    if not hasattr(image, "__arrow_c_array__") or pillow_core.get_alignment() != 1:
        return None
    try:
        array = image.__arrow_c_array__()[1]
    except ValueError:
        return None
    return arrow_pixels(array, image.height, image.width)


def _pixels(image: Image.Image) -> Bytes:
    """Return the pixels of an RGB image, uint8 of shape (H, W, 4)."""
    pixels = _pixels_in_place(image)
    if pixels is not None:
        return pixels
    return np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8).reshape(image.height, image.width, 4)


def resized_size(
    original_size: tuple[int, int], preprocessing: Preprocessing, input_size: tuple[int, int]
) -> tuple[int, int]:
    """Return the (width, height) to which an image is resized before the crop.

    Args:
        original_size: (width, height) of the whole image, in pixels.
        preprocessing: Preprocessing of the model file.
        input_size: (width, height) of the model's input, in pixels.

    Returns:
        (width, height) in pixels.
    """
    if preprocessing.resize == "none":
        return original_size
    size = preprocessing.size
    if size is None:
        return input_size
    if preprocessing.resize == "squash":
        return size, size
    width, height = original_size
    # torchvision truncates the longer side instead of rounding it.
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _crop_start(length: int, cropped: int, rounding: str) -> int:
    """Return the first pixel of a centre crop along one axis; negative if it pads (with black)."""
    if rounding == "down":
        return (length - cropped) // 2
    return round((length - cropped) / 2.0) if length >= cropped else -((cropped - length) // 2)


def _text(size: tuple[int, int]) -> str:
    """Return a (width, height) as text."""
    return f"{size[0]}x{size[1]}"
