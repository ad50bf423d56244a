"""Forms in which Python callers give labels, preprocessing and image sizes, converted to those of the file contract."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief
from seewhy.contract.metadata import Preprocessing, check_preprocessing
from seewhy.errors import ExportArgumentError
from seewhy_export.sources.label_files import labels_by_index, load_labels
from seewhy_export.sources.measured_preprocessing import UnmeasurableError, measure_preprocessing
from seewhy_export.sources.source import Source

_KEYS = tuple(field.name for field in fields(Preprocessing))


def as_labels(labels: Any) -> tuple[Any, ...] | None:
    """Return labels in the order of the class indices.

    Args:
        labels: Labels in order, a mapping from indices to labels (such as `config.id2label`) or from labels to indices,
            the path of a label file, or None.

    Returns:
        One label for each class, of which those that were given in order are not checked yet; or None.

    Raises:
        ExportError: If the labels have another form, or the file or the mapping does not define one label per index.
    """
    if labels is None:
        return None
    if isinstance(labels, (str, os.PathLike)):
        return load_labels(Path(labels))
    if isinstance(labels, Mapping):
        try:
            return labels_by_index({str(key): value for key, value in labels.items()})
        except ValueError as error:
            raise ExportArgumentError(f"labels: {error}") from error
    if isinstance(labels, (bytes, set, frozenset)) or not isinstance(labels, Iterable):
        raise ExportArgumentError(
            f"labels must be a list of labels in the order of the classes, a dict from indices to labels, or the path "
            f"of a label file, not {brief(labels)}"
        )
    return tuple(str(label) if isinstance(label, np.str_) else label for label in labels)


def as_preprocessing(
    preprocessing: Any, image_size: Any = Source.image_size
) -> tuple[Preprocessing | None, tuple[int, int]]:
    """Return a preprocessing and an image size as the file contract describes them.

    Args:
        preprocessing: A `Preprocessing`; a dict with its fields, of which `mean` and `std` are required; a function
            from an image to its array, such as a transform of torchvision or an image processor of transformers, which
            is measured; or None.
        image_size: (H, W) in pixels, or one side of a square. A function replaces the default size by its own.

    Returns:
        The preprocessing, validated, or None. And (H, W) in pixels.

    Raises:
        ExportArgumentError: If one of them has another form, the preprocessing has an unknown key or a value that is
            not allowed, or the function does what a model file cannot record, or gives arrays of another size.
    """
    size = as_image_size(image_size)
    if preprocessing is None:
        return None, size
    if callable(preprocessing):
        try:
            preprocessing, own_size = measure_preprocessing(preprocessing)
        except UnmeasurableError as error:
            raise ExportArgumentError(
                f"preprocessing cannot be recorded in a model file: {error}; give a seewhy_export.Preprocessing"
            ) from error
        if size not in (own_size, Source.image_size):
            raise ExportArgumentError(
                f"preprocessing gives arrays of {own_size[0]}x{own_size[1]} pixels, but image_size is "
                f"{size[0]}x{size[1]}; leave image_size out"
            )
        size = own_size
    if isinstance(preprocessing, Mapping):
        preprocessing = _from_mapping(preprocessing)
    if not isinstance(preprocessing, Preprocessing):
        raise ExportArgumentError(
            f"preprocessing must be a seewhy_export.Preprocessing, a function such as a transform of torchvision, or a "
            f"dict such as {{'resize': 'shorter-side', 'size': 256, 'mean': (0.5,), 'std': (0.25,)}}, not "
            f"{type(preprocessing).__name__}"
        )
    try:
        check_preprocessing(preprocessing)
    except (ValueError, TypeError) as error:
        raise ExportArgumentError(f"preprocessing is not valid: {error}") from error
    if preprocessing.resize == "squash" and preprocessing.size and not preprocessing.crop:
        if (preprocessing.size, preprocessing.size) != size:
            raise ExportArgumentError(
                f"preprocessing squashes images to {preprocessing.size}x{preprocessing.size} pixels and does not crop "
                f"them, but the input has {size[0]}x{size[1]}; set crop, or leave its size out"
            )
    return preprocessing, size


def _from_mapping(values: Mapping[Any, Any]) -> Preprocessing:
    """Return the preprocessing that a dict describes."""
    unknown = next((key for key in values if key not in _KEYS), None)
    if unknown is not None:
        raise ExportArgumentError(
            f"preprocessing has no key {unknown!r}.{did_you_mean(unknown, _KEYS)} Keys are {', '.join(_KEYS)}"
        )
    missing = [key for key in ("mean", "std") if key not in values]
    if missing:
        raise ExportArgumentError(
            f"preprocessing lacks {' and '.join(missing)}: one number per channel, for pixels from 0 to 1"
        )
    crops = values.get("size") is not None
    numbers = {key: _numbers(key, values[key]) for key in ("mean", "std")}
    return Preprocessing(**{"crop": crops, **values, **numbers})


def _numbers(key: str, values: Any) -> tuple[float, ...]:
    """Return the numbers in a list, a tuple or an array of any library, one for each channel."""
    try:
        return tuple(float(value) for value in ([values] if isinstance(values, (int, float)) else values))
    except (TypeError, ValueError) as error:
        raise ExportArgumentError(
            f"preprocessing: {key} must be one number per channel such as (0.5, 0.5, 0.5), not {brief(values)}"
        ) from error


def as_image_size(size: Any) -> tuple[int, int]:
    """Return an image size as (H, W).

    Args:
        size: (H, W) in pixels, or one side of a square.

    Returns:
        (H, W) in pixels.

    Raises:
        ExportArgumentError: If it is neither, or a side is not positive.
    """
    sides = (size, size) if isinstance(size, (int, np.integer)) else size
    is_pair = isinstance(sides, (tuple, list)) and len(sides) == 2
    if not is_pair or not all(_is_length(side) for side in sides):
        raise ExportArgumentError(f"image_size must be (height, width) or one side in pixels, not {brief(size)}")
    return int(sides[0]), int(sides[1])


def _is_length(side: Any) -> bool:
    """Return True for a positive integer."""
    return isinstance(side, (int, np.integer)) and not isinstance(side, bool) and bool(side > 0)
