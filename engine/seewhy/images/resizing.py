"""Resize and crop images to the model's input size, and record where the result lies on the image."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from seewhy.contract.constants import MAX_PIXELS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ImageError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


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
) -> tuple[Image.Image, Placement]:
    """Resize and crop an image, to the same pixels as torchvision's Resize and CenterCrop on a PIL image.

    Args:
        image: The image.
        preprocessing: Preprocessing of the model file.
        size: (height, width) of the model's input, in pixels.
        name: Name of the image in error messages.
        original_size: (width, height) of the whole image, if `image` was decoded at a smaller size.

    Returns:
        The model's view, and its position on the whole image.

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
    if resized != image.size:
        image = image.resize(resized, _FILTERS[preprocessing.interpolation])
    left = top = 0
    if preprocessing.crop:
        left, top = (
            _crop_start(length, cropped, preprocessing.crop_rounding)
            for length, cropped in zip(resized, (width, height), strict=True)
        )
        image = image.crop((left, top, left + width, top + height))
    if image.size != (width, height):
        raise ImageError(
            f"{name}: {_text(image.size)} pixels after preprocessing, but the model takes {width}x{height} and its "
            f"preprocessing does not crop; resize the image first"
        )
    return image, Placement(left, top, original_size[0] / resized[0], original_size[1] / resized[1])


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
