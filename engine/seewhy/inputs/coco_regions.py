"""Objects of a COCO file: boxes, polygons and run lengths, with the names of their categories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Integers
from seewhy._shared.text import first_line
from seewhy.contract.json_values import (
    fields,
    image_size,
    object_without_repeats,
    positive,
    require,
    text,
    tuple_of,
)
from seewhy.errors import ImageError
from seewhy.inputs.region_shapes import Box, Polygons, RunLengths, Shape

MAX_CORNERS = 100_000
"""Maximum number of corners of one object."""
MAX_COORDINATE = 2**31
"""Largest coordinate, in pixels."""
# Five of the six bits of a character hold a part of a number; numbers of more than 32 bits need more characters.
_MAX_CHARACTERS = 7


@dataclass(frozen=True, eq=False)
class Region:
    """An object on an image."""

    shape: Shape
    label: str | None = None
    """Label or class index of the object as it is written, or None."""
    image_size: tuple[int, int] | None = None
    """(width, height) that the upright image must have, or None."""


def coco_regions(content: bytes, name: str) -> Iterator[tuple[str, Region]]:
    """Read the objects of a COCO file.

    Args:
        content: Content of the file, JSON with `images`, `annotations` and, for labels, `categories`.
        name: Name of the file in error messages.

    Yields:
        File name of the image, and the object. The segmentation is used if there is one, else the box.

    Raises:
        ImageError: If the content is not JSON, or a value is missing or wrong.
    """
    try:
        document = json.loads(content, object_pairs_hook=object_without_repeats)
        whole = fields({"categories": tuple_of(_category)}, images=tuple_of(_image), annotations=tuple_of(lambda v: v))
        found = whole(document)
        images, labels = _by_id(found["images"]), _by_id(found.get("categories", ()))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ImageError(f"{name}: not a COCO file: {first_line(error)}") from None
    for place, annotation in enumerate(found["annotations"], 1):
        try:
            yield _region(annotation, images, labels if "categories" in found else None)
        except (ValueError, OverflowError) as error:
            raise ImageError(f"{name}: annotation {place}: {first_line(error)}; correct or remove it") from None


def _region(value: Any, images: dict[Any, Any], labels: dict[Any, Any] | None) -> tuple[str, Region]:
    known = fields({"category_id": _identity, "segmentation": lambda v: v, "bbox": lambda v: v}, image_id=_identity)
    values = known(value)
    require(values["image_id"] in images, "an image_id among the images", values["image_id"])
    file_name, size = images[values["image_id"]]
    label = None
    if labels is not None and "category_id" in values:
        require(values["category_id"] in labels, "a category_id among the categories", values["category_id"])
        label = labels[values["category_id"]]
    segmentation = values.get("segmentation")
    if isinstance(segmentation, dict):
        runs = _run_lengths(segmentation)
        require(size in (None, runs.size[::-1]), f"run lengths of an image of {size} pixels", list(runs.size[::-1]))
        return file_name, Region(runs, label, runs.size[::-1])
    if segmentation:
        return file_name, Region(_polygons(segmentation), label, size)
    require("bbox" in values, "a segmentation or a bbox", list(values))
    return file_name, Region(_box(values["bbox"]), label, size)


# Converters: each returns the converted value of a decoded JSON value, or raises a ValueError.


def _identity(value: Any) -> int | str:
    require(isinstance(value, (int, str)) and not isinstance(value, bool), "an integer or a text", value)
    return value  # type: ignore[no-any-return]


def _image(value: Any) -> tuple[int | str, tuple[str, tuple[int, int] | None]]:
    found = fields({"width": positive, "height": positive}, id=_identity, file_name=text)(value)
    size = (found["width"], found["height"]) if {"width", "height"} <= found.keys() else None
    return found["id"], (found["file_name"], size)


def _category(value: Any) -> tuple[int | str, str]:
    found = fields(id=_identity, name=text)(value)
    return found["id"], found["name"]


def _by_id(pairs: tuple[tuple[Any, Any], ...]) -> dict[Any, Any]:
    found = dict(pairs)
    require(len(found) == len(pairs), "ids that differ", [identity for identity, _ in pairs][:5])
    return found


def _numbers(value: Any, kinds: str) -> NDArray[Any]:
    """Return a list of numbers as an array; `kinds` are the allowed kinds of NumPy's dtypes."""
    require(isinstance(value, list), "a list", value)
    # Lists of different types or lengths become arrays of texts or objects, or fail.
    found = np.array(value)
    wanted = "a list of finite numbers" if "f" in kinds else "a list of counts"
    require(found.ndim == 1 and (not value or found.dtype.kind in kinds), wanted, value[:9])
    return found


def _coordinates(value: Any) -> NDArray[np.float64]:
    found = _numbers(value, "if").astype(np.float64)
    require(bool((np.abs(found) <= MAX_COORDINATE).all()), "coordinates in pixels", value[:9])  # false for NaN
    return found


def _box(value: Any) -> Box:
    corners = _coordinates(value)
    require(len(corners) == 4 and bool((corners[2:] >= 0).all()), "a bbox [x, y, width, height]", value[:9])
    x, y, width, height = corners.tolist()
    return Box(x, y, x + width, y + height)


def _polygons(value: Any) -> Polygons:
    each = tuple_of(_coordinates)(value)
    for corners in each:
        require(len(corners) >= 6 and len(corners) % 2 == 0, "polygons [x, y, x, y, x, y, ...]", corners[:9].tolist())
    total = sum(map(len, each)) // 2
    require(total <= MAX_CORNERS, f"polygons of at most {MAX_CORNERS} corners", total)
    return Polygons([corners.reshape(-1, 2) for corners in each])


def _run_lengths(value: Any) -> RunLengths:
    found = fields(counts=lambda counts: counts, size=image_size)(value)
    height, width = found["size"]
    counts: Any = found["counts"]
    lengths = _decoded(counts) if isinstance(counts, str) else _numbers(counts, "i").astype(np.int64)
    pixels = height * width
    require(bool((lengths >= 0).all()), "run lengths of at least 0", int(lengths.min(initial=0)))
    require(bool((lengths <= pixels).all()), f"run lengths of at most {pixels}", int(lengths.max(initial=0)))
    require(lengths.sum() == pixels, f"run lengths of {pixels} pixels in total", int(lengths.sum()))
    return RunLengths(lengths, (height, width))


def _decoded(counts: str) -> Integers:
    """Return the run lengths of COCO's compressed text.

    Each character holds six bits above the code 48: five of the number, the lowest first, and whether another character
    follows. The highest bit of a number is its sign. From the fourth length on, the text holds the difference to the
    length before the last one.
    """
    require(counts.isascii(), "run lengths as COCO's compressed text", counts)
    bits = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((bits & 32) == 0)
    valid = bool(((bits >= 0) & (bits < 64)).all()) and (not len(bits) or (len(ends) and ends[-1] == len(bits) - 1))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    sizes = ends - starts + 1
    require(bool(valid) and bool((sizes <= _MAX_CHARACTERS).all()), "run lengths as COCO's compressed text", counts)
    if not len(ends):
        return np.zeros(0, np.int64)
    places = np.arange(len(bits)) - np.repeat(starts, sizes)
    values: Integers = np.add.reduceat((bits & 31) << (5 * places), starts)
    values -= np.where(bits[ends] & 16, 1 << (5 * sizes), 0)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values
