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


def as_preprocessing(preprocessing: Any) -> Preprocessing | None:
    """Return a preprocessing as the file contract describes it.

    Args:
        preprocessing: A `Preprocessing`, a dict with its fields of which `mean` and `std` are required, or None.

    Returns:
        The preprocessing, validated; or None.

    Raises:
        ExportArgumentError: If it has another form, an unknown key, or a value that is not allowed.
    """
    if preprocessing is None:
        return None
    if isinstance(preprocessing, Mapping):
        preprocessing = _from_mapping(preprocessing)
    if not isinstance(preprocessing, Preprocessing):
        raise ExportArgumentError(
            f"preprocessing must be a seewhy_export.Preprocessing, or a dict such as "
            f"{{'resize': 'shorter-side', 'size': 256, 'mean': (0.5,), 'std': (0.25,)}}, not "
            f"{type(preprocessing).__name__}"
        )
    try:
        check_preprocessing(preprocessing)
    except (ValueError, TypeError) as error:
        raise ExportArgumentError(f"preprocessing is not valid: {error}") from error
    return preprocessing


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
    crops = values.get("resize") == "shorter-side"
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
