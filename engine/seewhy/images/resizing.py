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
    """Where the model's view lies on the photograph: view (x, y) is at ((x + left) * scale_x, (y + top) * scale_y)."""

    left: float
    top: float
    scale_x: float
    scale_y: float


def fit(
    image: Image.Image,
    preprocessing: Preprocessing,
    size: tuple[int, int],
    name: str,
    whole: tuple[int, int] | None = None,
) -> tuple[Image.Image, Placement]:
    """Resize and crop `image` to `size` (H, W), with the pixels that torchvision's Resize and CenterCrop give.

    `whole` is the (width, height) of the photograph, where `image` was decoded smaller than that.

    Raises:
        ImageError: the result would not have the model's size, or resizing would take too much memory.
    """
    height, width = size
    before = image.size if whole is None else whole
    resized = resized_size(before, preprocessing, (width, height))
    if resized[0] * resized[1] > MAX_PIXELS:
        raise ImageError(f"{name}: {_size(before)} pixels would be resized to {_size(resized)}; crop it first")
    if resized != image.size:
        image = image.resize(resized, _FILTERS[preprocessing.interpolation])
    left = top = 0
    if preprocessing.crop:
        left, top = _crop_start(resized[0], width), _crop_start(resized[1], height)
        image = image.crop((left, top, left + width, top + height))
    if image.size != (width, height):
        raise ImageError(
            f"{name}: {_size(image.size)} pixels after preprocessing, but the model takes {width}x{height} and its "
            f"preprocessing does not crop; resize the image first"
        )
    return image, Placement(left, top, before[0] / resized[0], before[1] / resized[1])


def resized_size(before: tuple[int, int], preprocessing: Preprocessing, wanted: tuple[int, int]) -> tuple[int, int]:
    if preprocessing.resize == "none":
        return before
    if preprocessing.resize == "squash" or preprocessing.size is None:
        return wanted
    width, height = before
    size = preprocessing.size
    # torchvision truncates the longer side instead of rounding it.
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _crop_start(have: int, want: int) -> int:
    """Where torchvision's CenterCrop starts; negative where it pads (Pillow's crop fills with black, as it does)."""
    return round((have - want) / 2.0) if have >= want else -((want - have) // 2)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
