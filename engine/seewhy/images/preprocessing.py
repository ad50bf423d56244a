"""From a photograph to the model's view of it, and to normalised pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy._core import normalize
from seewhy._shared.arrays import Bytes, Floats, first_not_finite
from seewhy._shared.regular_files import FileStamp
from seewhy.contract.metadata import Metadata, Preprocessing
from seewhy.errors import ImageError
from seewhy.images.decoding import Decoded, Smaller, decode_bytes, decode_file, decode_image
from seewhy.images.resizing import Placement, fit, resized_size

_MODES = {1: "L", 3: "RGB"}
_WHOLE = Placement(0, 0, 1, 1)
_NOT_SAID = (
    "the model file does not say how to preprocess a photograph; give a preprocessed float32 array (N,C,H,W), or "
    "export again with preprocessing"
)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image file's content."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One image as the model sees it."""

    name: str
    """A file's path, or what stands for it."""
    view: Bytes
    """(H,W,C) uint8, C 1 or 3: resized and cropped, not normalised."""
    placement: Placement
    size: tuple[int, int]
    """(width, height) of the whole photograph, upright."""
    source: str | os.PathLike[str] | EncodedImage | Image.Image | None = field(repr=False)
    """The path or content that it came from. For a PIL image or an array this is a copy, upright RGB, because the
    caller may change them. None where the whole photograph was not to be kept."""
    stamp: FileStamp | None = field(default=None, repr=False)
    """Stamp of the file when it was read; None where the source is not a path."""

    def original(self) -> Bytes:
        """Return the whole photograph, decoding a file again.

        Returns:
            Upright RGB pixels, uint8 of shape (H0, W0, 3).

        Raises:
            ImageError: If the file cannot be read any more, has changed since it was explained, or was not kept.
        """
        if self.source is None:
            raise ImageError(f"{self.name}: the whole photograph was not kept; draw on what the model saw")
        decoded = _decode(self.source, "RGB", self.name)
        if decoded.stamp != self.stamp:
            raise ImageError(f"{self.name}: changed or replaced since it was explained; explain it again")
        return np.array(decoded.image)


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """One image that came as preprocessed pixels."""

    name: str
    source: Floats = field(repr=False)
    """Pixels of shape (C, H, W); a copy, because the caller may use the array again."""
    preprocessing: Preprocessing | None = field(repr=False)
    placement: Placement = _WHOLE

    @property
    def view(self) -> Bytes:
        """(H,W,C) uint8: the pixels with the normalisation undone, rounded and clipped to 0..255.

        Raises:
            ImageError: the model file does not say how pixels were normalised, or they are not grey or RGB.
        """
        if self.preprocessing is None or len(self.source) not in _MODES:
            raise ImageError(
                f"{self.name}: preprocessed pixels of {len(self.source)} channels cannot be turned back into a "
                f"photograph by what this model file says; draw the heatmaps yourself"
            )
        mean, std = (np.array(v).reshape(-1, 1, 1) for v in (self.preprocessing.mean, self.preprocessing.std))
        pixels = np.rint((self.source * std + mean) * 255).clip(0, 255).astype(np.uint8)
        if self.preprocessing.channel_order == "BGR":
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def original(self) -> Bytes:
        """(H,W,3) uint8: there is no other photograph than the view."""
        return np.array(np.broadcast_to(self.view, (*self.view.shape[:2], 3)))


ModelView: TypeAlias = LoadedImage | ArrayImage


@dataclass(frozen=True)
class ImageBatch:
    """Images to decode, resize and normalise part by part."""

    images: Sequence[Any]
    metadata: Metadata

    def __len__(self) -> int:
        return len(self.images)

    def load(self, start: int, stop: int, threads: int) -> tuple[list[ModelView], Floats]:
        """Photographs `start` to `stop`, and their (n,C,H,W) pixels as the model takes them."""
        part = self.images[start:stop]
        photos = [load_image(image, self.metadata, f"image {start + i}") for i, image in enumerate(part)]
        return list(photos), normalise(photos, self.metadata, threads)


@dataclass(frozen=True)
class ArrayBatch:
    """Pixels that are ready for the model."""

    pixels: Floats
    metadata: Metadata

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, start: int, stop: int, threads: int) -> tuple[list[ModelView], Floats]:
        """Return pixels `start` to `stop` as they came."""
        part = self.pixels[start:stop].copy()
        known = self.metadata.preprocessing
        return [ArrayImage(f"image {start + i}", row, known) for i, row in enumerate(part)], part


def image_batch(images: Any, metadata: Metadata) -> ImageBatch | ArrayBatch:
    """What `Explainer.explain` accepts as images, ready to be loaded part by part.

    Raises:
        ImageError: there are none, or preprocessed pixels have the wrong dtype or shape, or are not finite.
    """
    result: ImageBatch | ArrayBatch
    if isinstance(images, np.ndarray) and (images.ndim == 4 or images.dtype != np.uint8):
        result = ArrayBatch(_preprocessed(images, metadata), metadata)
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
        image: A path, an `EncodedImage`, a PIL image or a uint8 array; a `LoadedImage` is returned as it is.
        metadata: That of the model file.
        name: Name for errors about an image that has none of its own.
        fast: Whether the JPEG decoder may leave out detail that is lost in resizing anyway. Pixels then differ from
            exact ones, in photographs by up to some 30 of 255.
        keep: Whether to keep the source, so that `original` works. Of a PIL image or an array this is a copy.

    Raises:
        ImageError: If the image cannot be used, or the model file does not say how to preprocess one.
    """
    if isinstance(image, LoadedImage):
        return image
    how, wanted = require_preprocessing(metadata), metadata.image_size[::-1]
    name = _name(image, name)
    smaller = (lambda whole: resized_size(whole, how, wanted)) if fast else None
    decoded = _decode(image, _MODES[metadata.channels], name, smaller)
    view, placement = fit(decoded.image, how, metadata.image_size, name, decoded.size)
    pixels = np.array(view)
    pixels = pixels.reshape(*metadata.image_size, metadata.channels)
    return LoadedImage(name, pixels, placement, decoded.size, _kept(image, decoded, name, keep), decoded.stamp)


def _kept(image: Any, decoded: Decoded, name: str, keep: bool) -> Any:
    """Return what the whole photograph can be made of later, whatever the caller does with `image`."""
    if isinstance(image, (str, os.PathLike)):
        return image
    if not keep or isinstance(image, EncodedImage):
        return image if keep else None
    given = _as_image(image, name)
    upright = decoded.image if decoded.image.mode == "RGB" else decode_image(given, "RGB", name)
    # Unless it was converted or turned, it is the caller's own image, or shares the memory of the caller's array.
    return upright.copy() if given.mode == "RGB" else upright


def require_preprocessing(metadata: Metadata) -> Preprocessing:
    """How the model takes photographs.

    Raises:
        ImageError: it takes none, or its file does not say how to preprocess them.
    """
    if metadata.channels not in _MODES:
        raise ImageError(
            f"the model takes {metadata.channels} channels, not a photograph's 1 or 3; "
            f"give a preprocessed float32 array (N,{metadata.channels},H,W)"
        )
    if metadata.preprocessing is None:
        raise ImageError(_NOT_SAID)
    return metadata.preprocessing


def normalise(photos: Sequence[LoadedImage], metadata: Metadata, threads: int = 0) -> Floats:
    """The photographs' views as one (N,C,H,W) float32 array, as the model takes it."""
    how = metadata.preprocessing
    if how is None:
        raise ImageError(_NOT_SAID)
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    stack = np.stack([photo.view for photo in photos])
    return normalize(stack, mean, std, how.channel_order == "BGR", threads)


def _preprocessed(images: NDArray[Any], metadata: Metadata) -> Floats:
    _refuse_masked(images, "images")
    wanted = (metadata.channels, *metadata.image_size)
    shape = "(N," + ",".join(map(str, wanted)) + ")"
    if images.dtype != np.float32:
        raise ImageError(
            f"an array of preprocessed pixels must be float32 {shape}, not {images.dtype} {images.shape}; give "
            f"photographs as a list of uint8 arrays HxWx3"
        )
    if images.ndim != 4 or images.shape[1:] != wanted:
        raise ImageError(f"preprocessed pixels must have the shape {shape}, not {images.shape}")
    row = first_not_finite(images)
    if row is not None:
        raise ImageError(f"preprocessed image {row} holds NaN or infinity")
    return np.ascontiguousarray(images)


def _decode(image: Any, mode: str, name: str, smaller: Smaller | None = None) -> Decoded:
    if isinstance(image, (str, os.PathLike)):
        return decode_file(image, mode, smaller)
    if isinstance(image, EncodedImage):
        return decode_bytes(image.content, mode, name, smaller)
    upright = decode_image(_as_image(image, name), mode, name)
    return Decoded(upright, upright.size)


def _as_image(image: Any, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    _refuse_masked(image, name)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name}: an image is a path, a PIL image or a uint8 array, not {type(image).__name__}")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ImageError(f"{name}: a photograph is a uint8 array HxWx3 or HxW, not {image.dtype} {image.shape}")
    if image.size == 0:
        raise ImageError(f"{name}: the array holds no pixels, its shape is {image.shape}")
    return Image.fromarray(image)


def _refuse_masked(array: Any, name: str) -> None:
    """Raise an ImageError for a masked array: what its mask hides would be explained like everything else."""
    if isinstance(array, np.ma.MaskedArray):
        raise ImageError(f"{name}: a masked array; give its values with those that are masked filled in, by filled()")


def _name(image: Any, fallback: str) -> str:
    if isinstance(image, (str, os.PathLike)):
        return str(Path(image))
    filename = image.name if isinstance(image, EncodedImage) else getattr(image, "filename", None)
    return filename if isinstance(filename, str) and filename else fallback
