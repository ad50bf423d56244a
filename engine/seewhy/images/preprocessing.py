"""Load images: decode, resize, crop and normalise them as the model file says."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy._core import finite_copy, normalize
from seewhy._shared.arrays import Bytes, Floats
from seewhy._shared.regular_files import FileStamp
from seewhy.contract.metadata import Metadata, Preprocessing
from seewhy.errors import ImageError
from seewhy.images.decoding import Decoded, ResizeRule, decode_bytes, decode_file, decode_image
from seewhy.images.resizing import Placement, resize_and_crop, resized_size

_FLOAT32 = np.dtype(np.float32)
_MODES = {1: "L", 3: "RGB"}
# Grey of 12 bits that is taken for grey of 16 bits has pixels from 0 to 16 of 255.
_CONSTANT = 16
_WHOLE = Placement(0, 0, 1, 1)
_NO_PREPROCESSING = (
    "the model file does not say how to preprocess images; give a preprocessed float32 array (N,C,H,W), or export the "
    "network again with preprocessing"
)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Content of an image file."""

    name: str
    """Path of the file, or a name that stands for it."""
    content: bytes = field(repr=False)
    """Bytes of the file."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """Image that was resized and cropped for the model."""

    name: str
    """Path of the file, or a name that stands for it."""
    view: Bytes
    """The model's view: resized and cropped pixels, not normalised; uint8 of shape (H, W, C), where C is 1 or 3."""
    placement: Placement
    """Position of the view on the whole image."""
    size: tuple[int, int]
    """(width, height) of the whole upright image, in pixels."""
    source: str | os.PathLike[str] | EncodedImage | Image.Image | None = field(repr=False)
    """Path or content of the image, or None if the source was not kept.

    For a PIL image or an array, this is an upright RGB copy, because the caller may change the original.
    """
    stamp: FileStamp | None = field(default=None, repr=False)
    """Stamp of the file when it was read, or None if the source is not a path."""

    @property
    def warning(self) -> str | None:
        """Text about a nearly constant image, which explains nothing; None for other images."""
        span = 0
        for step in (8, 1):  # most images vary enough at a few pixels of their first channel
            for channel in range(self.view.shape[2]):
                pixels = self.view[::step, ::step, channel]
                span = max(span, int(pixels.max()) - int(pixels.min()))
                if span > _CONSTANT:
                    return None
        hint = "if its samples use only part of their range, such as 12 of 16 bits, scale them to the whole range"
        found = f"the image is nearly constant: the pixels of a channel differ by at most {span} of 255"
        return f"{found}; {hint}" if self.view.max() <= _CONSTANT else found

    def original(self) -> Bytes:
        """Decode the whole image again.

        Returns:
            Upright RGB pixels, uint8 of shape (H0, W0, 3).

        Raises:
            ImageError: If the file cannot be read, has changed since it was loaded, or the source was not kept.
        """
        if self.source is None:
            raise ImageError(f"{self.name}: the whole image was not kept; use canvas 'model'")
        decoded = _decode(self.source, "RGB", self.name)
        if decoded.stamp != self.stamp:
            raise ImageError(f"{self.name}: the file has changed since it was explained; explain it again")
        return np.array(decoded.image)


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """Image that was given as preprocessed pixels."""

    name: str
    """Name of the image in error messages."""
    source: Floats = field(repr=False)
    """Pixels, float32 of shape (C, H, W)."""
    preprocessing: Preprocessing | None = field(repr=False)
    """Preprocessing of the model file, or None if it has none."""
    placement: Placement = _WHOLE
    """Position of the view on the whole image: all of it."""
    warning: None = None
    """Preprocessed pixels are used as they are."""

    @property
    def view(self) -> Bytes:
        """The model's view: pixels without the normalisation, rounded and clipped to 0..255.

        It is a uint8 array of shape (H, W, C).

        Raises:
            ImageError: If the model file does not say how pixels are normalised, or they are neither grey nor RGB.
        """
        if self.preprocessing is None or len(self.source) not in _MODES:
            raise ImageError(
                f"{self.name}: the model file does not say how to turn preprocessed pixels with {len(self.source)} "
                f"channels back into an image; draw the heatmaps yourself"
            )
        mean, std = (np.array(v).reshape(-1, 1, 1) for v in (self.preprocessing.mean, self.preprocessing.std))
        pixels = np.rint((self.source * std + mean) * 255).clip(0, 255).astype(np.uint8)
        if self.preprocessing.channel_order == "BGR":
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def original(self) -> Bytes:
        """Return the view as RGB pixels, uint8 of shape (H, W, 3). There is no larger image than the view."""
        return np.array(np.broadcast_to(self.view, (*self.view.shape[:2], 3)))


ModelView: TypeAlias = LoadedImage | ArrayImage
"""Image with the model's view of it."""


@dataclass(frozen=True)
class ImageBatch:
    """Images that are decoded, resized and normalised a batch at a time."""

    images: Sequence[Any]
    """The images, in any form that `load_image` accepts."""
    metadata: Metadata
    """Metadata of the model file."""

    def __len__(self) -> int:
        return len(self.images)

    def load(self, start: int, stop: int, threads: int) -> tuple[list[ModelView], Floats]:
        """Load a batch of images.

        Args:
            start: Index of the first image.
            stop: Index after the last image.
            threads: Maximum number of threads for the normalisation; 0 means one per core.

        Returns:
            The loaded images, and their pixels as the model takes them, float32 of shape (stop - start, C, H, W).

        Raises:
            ImageError: If an image cannot be used.
        """
        batch = self.images[start:stop]
        loaded = [load_image(image, self.metadata, f"image {start + i}") for i, image in enumerate(batch)]
        return list(loaded), normalise(loaded, self.metadata, threads)


@dataclass(frozen=True)
class ArrayBatch:
    """Images that were given as preprocessed pixels."""

    pixels: Floats
    """Pixels of all images, float32 of shape (N, C, H, W). They are a copy, because the caller may use the array
    again."""
    metadata: Metadata
    """Metadata of the model file."""

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, start: int, stop: int, threads: int) -> tuple[list[ModelView], Floats]:
        """Return a batch of the images, and their pixels; see `ImageBatch.load`."""
        batch = self.pixels[start:stop]
        preprocessing = self.metadata.preprocessing
        return [ArrayImage(f"image {start + i}", pixels, preprocessing) for i, pixels in enumerate(batch)], batch


def image_batch(images: Any, metadata: Metadata, threads: int = 0) -> ImageBatch | ArrayBatch:
    """Prepare images for loading in batches.

    Args:
        images: Images in any form that `Explainer.explain` accepts.
        metadata: Metadata of the model file.
        threads: Maximum number of threads for the copy of preprocessed pixels; 0 means one per core.

    Returns:
        The images, which are decoded when they are loaded.

    Raises:
        ImageError: If there are no images, or preprocessed pixels have the wrong dtype or shape, or are not finite.
    """
    result: ImageBatch | ArrayBatch
    if isinstance(images, np.ndarray) and (images.ndim == 4 or images.dtype != np.uint8):
        result = ArrayBatch(_preprocessed(images, metadata, threads), metadata)
    else:
        result = ImageBatch(list(images) if isinstance(images, (list, tuple)) else [images], metadata)
    if not len(result):
        raise ImageError("no images given")
    return result


def load_image(
    image: Any, metadata: Metadata, name: str = "image", fast: bool = False, keep: bool = True
) -> LoadedImage:
    """Decode, resize and crop one image.

    Args:
        image: A path, the bytes of an image file, a `BytesIO`, an `EncodedImage`, a PIL image or a uint8 array. A
            `LoadedImage` is returned unchanged.
        metadata: Metadata of the model file.
        name: Name in error messages of an image that has no name.
        fast: True to let the JPEG decoder leave out detail that resizing removes anyway. Pixels then differ from those
            of exact decoding, in photographs by up to about 30 of 255.
        keep: True to keep the source, which `original` needs. For a PIL image or an array, this is a copy.

    Returns:
        The loaded image.

    Raises:
        ImageError: If the image cannot be used, or the model file does not say how to preprocess images.
    """
    if isinstance(image, LoadedImage):
        return image
    preprocessing, input_size = require_preprocessing(metadata), metadata.image_size[::-1]
    if isinstance(image, io.BytesIO):
        if image.closed:
            raise ImageError(f"{name}: the stream is closed")
        image = image.getvalue()  # the whole content, even if it was just written
    if isinstance(image, (bytes, bytearray, memoryview)):
        image = EncodedImage(name, bytes(image))
    name = _name(image, name)
    resize_rule = (lambda whole: resized_size(whole, preprocessing, input_size)) if fast else None
    decoded = _decode(image, _MODES[metadata.channels], name, resize_rule)
    view, placement = resize_and_crop(decoded.image, preprocessing, metadata.image_size, name, decoded.size)
    pixels = view.reshape(*metadata.image_size, metadata.channels)
    return LoadedImage(name, pixels, placement, decoded.size, _source(image, decoded, name, keep), decoded.stamp)


def _source(image: Any, decoded: Decoded, name: str, keep: bool) -> Any:
    """Return a source for decoding the whole image later, even if the caller changes `image`."""
    if isinstance(image, (str, os.PathLike)):
        return image
    if not keep or isinstance(image, EncodedImage):
        return image if keep else None
    given = _as_image(image, name)
    upright = decoded.image if decoded.image.mode == "RGB" else decode_image(given, "RGB", name)
    # Without a conversion or rotation, this is the caller's image itself, or shares memory with the caller's array.
    return upright.copy() if given.mode == "RGB" else upright


def require_preprocessing(metadata: Metadata) -> Preprocessing:
    """Return the preprocessing of images.

    Args:
        metadata: Metadata of the model file.

    Returns:
        The preprocessing.

    Raises:
        ImageError: If the model takes neither grey nor RGB, or its file does not say how to preprocess images.
    """
    if metadata.channels not in _MODES:
        raise ImageError(
            f"the model takes {metadata.channels} channels, not 1 or 3 as images have; give a preprocessed float32 "
            f"array (N,{metadata.channels},H,W)"
        )
    if metadata.preprocessing is None:
        raise ImageError(_NO_PREPROCESSING)
    return metadata.preprocessing


def normalise(images: Sequence[LoadedImage], metadata: Metadata, threads: int = 0) -> Floats:
    """Normalise the views of images.

    Args:
        images: The N loaded images.
        metadata: Metadata of the model file.
        threads: Maximum number of threads; 0 means one per core.

    Returns:
        Pixels as the model takes them, float32 of shape (N, C, H, W).

    Raises:
        ImageError: If the model file does not say how to preprocess images.
    """
    return normalise_views(np.stack([image.view for image in images]), metadata, threads)


def normalise_views(views: Bytes, metadata: Metadata, threads: int = 0) -> Floats:
    """Normalise views of the model's input size.

    Args:
        views: Pixels in RGB order, or grey, uint8 of shape (N, H, W, C).
        metadata: Metadata of the model file.
        threads: Maximum number of threads; 0 means one per core.

    Returns:
        Pixels as the model takes them, float32 of shape (N, C, H, W).

    Raises:
        ImageError: If the model file does not say how to preprocess images.
    """
    preprocessing = metadata.preprocessing
    if preprocessing is None:
        raise ImageError(_NO_PREPROCESSING)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return normalize(views, mean, std, preprocessing.channel_order == "BGR", threads)


def _preprocessed(images: NDArray[Any], metadata: Metadata, threads: int) -> Floats:
    """Return a copy of the user's preprocessed pixels, or raise an ImageError if they do not fit."""
    _refuse_masked(images, "images")
    expected = (metadata.channels, *metadata.image_size)
    if images.dtype != _FLOAT32 or images.ndim != 4 or images.shape[1:] != expected:
        shape = "(N," + ",".join(map(str, expected)) + ")"
        if images.dtype == _FLOAT32:
            raise ImageError(f"preprocessed pixels must have shape {shape}, not {images.shape}")
        raise ImageError(
            f"an array of preprocessed pixels must be float32 {shape}, not {images.dtype} {images.shape}; give images "
            f"as a list of uint8 arrays HxWx3"
        )
    copy, row = finite_copy(np.require(images, requirements=("C", "A")), threads)
    if row is not None:
        raise ImageError(f"preprocessed image {row} holds NaN or infinity")
    return copy


def _decode(image: Any, mode: str, name: str, resize_rule: ResizeRule | None = None) -> Decoded:
    """Decode an image in any form that `load_image` accepts."""
    if isinstance(image, (str, os.PathLike)):
        return decode_file(image, mode, resize_rule)
    if isinstance(image, EncodedImage):
        return decode_bytes(image.content, mode, name, resize_rule)
    upright = decode_image(_as_image(image, name), mode, name)
    return Decoded(upright, upright.size)


def _as_image(image: Any, name: str) -> Image.Image:
    """Return a PIL image or an array as a PIL image, or raise an ImageError if it is neither."""
    if isinstance(image, Image.Image):
        return image
    _refuse_masked(image, name)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{name}: an image must be a path, the bytes of an image file, a PIL image or a uint8 array, not "
            f"{type(image).__name__}"
        )
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ImageError(
            f"{name}: an image array must be uint8 HxWx3 (RGB), HxWx4 (RGBA) or HxW (grey), not {image.dtype} "
            f"{image.shape}"
        )
    if image.size == 0:
        raise ImageError(f"{name}: the array has no pixels; its shape is {image.shape}")
    return Image.fromarray(image)


def _refuse_masked(array: Any, name: str) -> None:
    """Raise an ImageError for a masked array, because masked pixels would be explained like all others."""
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        raise ImageError(f"{name}: masked arrays are not supported; fill in the masked values with filled()")


def _name(image: Any, fallback: str) -> str:
    """Return the path or file name of an image, or `fallback` if it has none."""
    if isinstance(image, (str, os.PathLike)):
        return str(image if isinstance(image, Path) else Path(image))
    filename = image.name if isinstance(image, EncodedImage) else getattr(image, "filename", None)
    return filename if isinstance(filename, str) and filename else fallback
