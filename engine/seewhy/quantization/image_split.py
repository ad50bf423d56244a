"""Choose the images that calibrate, and others that measure the drift."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy._shared.text import brief
from seewhy.contract.metadata import Metadata
from seewhy.errors import ArgumentError, ImageError, MissingExtraError, SeewhyError
from seewhy.explainer.explainer import Explainer
from seewhy.images.preprocessing import LoadedImage, load_image, normalise, require_preprocessing
from seewhy.inputs.image_inputs import ImageInput, Inputs

MOST_IMAGES = 160
"""Largest number of images that are chosen. Two fifths of them calibrate, and the others measure the drift."""
FEWEST_IMAGES = 20
"""Smallest number of images that can be split."""

Skipped: TypeAlias = "Callable[[SeewhyError], object] | None"
"""Function that is called with the error of an image that cannot be used, or None to raise the error."""


def split(
    images: Any, lists: Sequence[str | os.PathLike[str]], output: Path, float32: Explainer, skipped: Skipped
) -> tuple[Floats, Floats]:
    """Choose and load images.

    The choice is random, but the same for the same images. Another image takes the place of one that is skipped.

    Args:
        images: Images, as `quantize` takes them.
        lists: Files that list images.
        output: Path of the new model file.
        float32: Explainer of the float32 file.
        skipped: Function that is called with the error of an image that cannot be used. None raises the error.

    Returns:
        Pixels of the images that calibrate, and of those that measure the drift, float32 of shape (N, C, H, W).

    Raises:
        ArgumentError: If the images have the wrong type, or there are fewer than 20.
        ImageError: If an image cannot be used and `skipped` is None, or fewer than 20 images can be used.
        MissingExtraError: If an image needs an extra and `skipped` is None.
    """
    paths = [images] if isinstance(images, (str, os.PathLike)) else images
    if isinstance(paths, (list, tuple)) and all(isinstance(one, (str, os.PathLike)) for one in paths):
        inputs = Inputs(paths, output, lists)
        return _loaded(inputs, _existing(inputs, skipped), float32, skipped)
    if lists:
        raise ArgumentError("lists needs paths as images, not images in memory")
    if isinstance(images, np.ndarray) and images.ndim == 4:
        order = _order(range(len(images)))[:MOST_IMAGES]
        return _parts(float32.preprocess(images[order]))
    if not isinstance(images, (list, tuple)):
        raise ArgumentError(f"images must be paths, or a list or array of images, not {brief(images)}")
    return _loaded(images, range(len(images)), float32, skipped)


def _existing(inputs: Inputs, skipped: Skipped) -> list[int]:
    """Return the numbers of the images that exist; skip all others, or raise an ImageError if the rest would not do.

    Others are skipped whether or not they would be chosen, because a path that does not exist may be a whole folder.
    """
    found, missing = [], []
    for i, one in enumerate(inputs):
        if isinstance(one.image, Path) and not os.path.exists(one.image):
            missing.append(ImageError(f"{one.path}: no such file or folder"))
        else:
            found.append(i)
    for error in missing:
        if skipped is None or len(found) < FEWEST_IMAGES:
            raise error
        skipped(error)
    return found


def _order(numbers: Sequence[int]) -> list[int]:
    """Return the numbers of images in the order in which they are chosen."""
    if len(numbers) < FEWEST_IMAGES:
        raise ArgumentError(
            f"quantisation needs at least {FEWEST_IMAGES} images, better {MOST_IMAGES}, not {len(numbers)}: some "
            f"choose the 8-bit ranges, and the others measure the drift; give more images"
        )
    return random.Random(0).sample(numbers, len(numbers))


def _parts(pixels: Floats) -> tuple[Floats, Floats]:
    """Split the pixels of the chosen images."""
    used = len(pixels) * 2 // 5
    return pixels[:used], pixels[used:]


def _loaded(
    images: Iterable[Any], numbers: Sequence[int], float32: Explainer, skipped: Skipped
) -> tuple[Floats, Floats]:
    """Load images of these numbers in the order in which they are chosen, until there are enough.

    Archives may be large, so only pixels of chosen images are kept, and the images are read once unless some are
    skipped.
    """
    metadata = float32.metadata
    require_preprocessing(metadata)
    order, found = _order(numbers), dict[int, LoadedImage]()
    rest = order
    while rest and len(found) < MOST_IMAGES:
        missing = MOST_IMAGES - len(found)
        wanted, rest = set(rest[:missing]), rest[missing:]
        for i, image in enumerate(images):
            if i in wanted:
                try:
                    found[i] = _load(image, metadata, f"image {i}")
                except (ImageError, MissingExtraError) as error:
                    if skipped is None:
                        raise
                    skipped(error)
    if len(found) < FEWEST_IMAGES:
        raise ImageError(
            f"only {len(found)} of the {len(numbers)} images can be used, but quantisation needs at least "
            f"{FEWEST_IMAGES}; give more images"
        )
    return _parts(normalise([found[i] for i in order if i in found], metadata))


def _load(image: Any, metadata: Metadata, name: str) -> LoadedImage:
    """Load one image."""
    if not isinstance(image, ImageInput):
        return load_image(image, metadata, name, keep=False)
    if image.error is not None:
        raise image.error
    return load_image(image.image, metadata, image.path, keep=False)
