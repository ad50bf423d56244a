"""Boxes and masks of objects, from a CSV or COCO file, and their masks on the model's view."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from seewhy._shared import checks
from seewhy._shared.regular_files import open_regular, sha256_of
from seewhy._shared.text import brief, printable, short
from seewhy.contract.constants import LONGEST_TEXT
from seewhy.errors import ImageError
from seewhy.images.preprocessing import LoadedImage
from seewhy.inputs.coco_regions import MAX_COORDINATE, Region, coco_regions
from seewhy.inputs.image_lists import is_text, text_lines
from seewhy.inputs.region_shapes import Box, Mask
from seewhy.targets.class_targets import classes_with_label, read_target

MAX_BYTES = 256 * 2**20
"""Maximum size of a file, in bytes. JSON takes several times as much memory."""
MAX_REGIONS = 1_000_000
"""Maximum number of objects in one file."""
MAX_REGIONS_PER_IMAGE = 10_000
"""Maximum number of objects on one image."""
_CORNERS = ("x0", "y0", "x1", "y1")
_REQUIRED = ("path", *_CORNERS)
_LABEL = "label"


class Regions:
    """Objects of many images.

    A path in the file names an image if it is the image's path, relative to the folder of the file. If there is no such
    image, it names all images whose paths end with it: `cats/1.jpg` is `photos/cats/1.jpg`. The longest such path
    counts.

    Attributes:
        labels: Labels of all objects.
        sha256: SHA-256 of the file's bytes, as 64 hexadecimal digits.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read a file.

        Args:
            path: A CSV file with the columns path, x0, y0, x1, y1 and optionally label, in pixels of the upright image,
                or a COCO file (.json).

        Raises:
            ArgumentError: If the path is not a path.
            ImageError: If the file cannot be read, is too large, holds no objects, or a value is missing or wrong.
        """
        path = checks.path("the file of regions", path)
        name = printable(path)
        self._folder = os.path.dirname(os.path.realpath(path))
        self._by_path: defaultdict[str, list[Region]] = defaultdict(list)
        total = 0
        for total, (image, region) in enumerate(_read(path, name), 1):
            found = self._by_path[os.path.normpath(os.path.join(self._folder, image))]
            found.append(region)
            if total > MAX_REGIONS or len(found) > MAX_REGIONS_PER_IMAGE:
                raise ImageError(
                    f"{name}: more than {MAX_REGIONS:,} objects, or {MAX_REGIONS_PER_IMAGE:,} on one image; leave out "
                    f"objects of other images"
                )
        if not total:
            raise ImageError(f"{name}: the file holds no objects")
        with open_regular(path) as file:
            self.sha256 = sha256_of(file)
        self.labels = {one.label for each in self._by_path.values() for one in each if one.label is not None}

    def of(self, path: str | os.PathLike[str]) -> list[Region]:
        """Return the objects of an image.

        Args:
            path: Path of the image, or TAR#MEMBER.

        Returns:
            The objects in the order of the file; empty if there are none.
        """
        whole = os.path.abspath(path)
        for place in (whole, os.path.realpath(path)):
            if place in self._by_path:
                return self._by_path[place]
        for start, character in enumerate(whole, 1):
            if character in "/#":
                place = os.path.normpath(os.path.join(self._folder, whole[start:].lstrip("/")))
                if place in self._by_path and not os.path.exists(place):
                    return self._by_path[place]
        return []


def _read(path: str, name: str) -> Iterator[tuple[str, Region]]:
    """Yield the path of the image and the object, one by one."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(
                    f"{name}: the file has {size:,} bytes; the maximum is {MAX_BYTES:,}; leave out objects of other "
                    f"images"
                )
            if path.lower().endswith(".json"):
                yield from coco_regions(file.read(MAX_BYTES), name)
            elif path.lower().endswith(".csv"):
                with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                    yield from _rows(text_lines(text, name), name)
            else:
                raise ImageError(f"{name}: the name of a file of regions ends in .csv, or in .json for COCO")
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None


def _rows(lines: Iterator[str], name: str) -> Iterator[tuple[str, Region]]:
    header = [column.strip().lower() for column in next(csv.reader([next(lines, "")]), [])]
    if any(header.count(column) != 1 for column in _REQUIRED) or header.count(_LABEL) > 1:
        raise ImageError(
            f"{name}: the first line must name the columns: {', '.join(_REQUIRED)}, and optionally label, each once; "
            f"it is {brief(header)}"
        )
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            if row:
                yield _row(
                    dict(zip(header, row, strict=False)), len(row), f"{name}: line {reader.line_num + 1}", header
                )
    except csv.Error as error:
        raise ImageError(f"{name}: line {reader.line_num + 1} is not CSV: {error}") from None


def _row(values: Mapping[str, str], count: int, where: str, header: Sequence[str]) -> tuple[str, Region]:
    if count > len(header) or not values.get("path"):
        problem = "no path" if count <= len(header) else f"{count} values, but there are {len(header)} columns"
        raise ImageError(f"{where} has {problem}; quote commas")
    path, label = values["path"], values.get(_LABEL) or None
    for column, text in (("path", path), (_LABEL, label or "")):
        size = len(text.encode(errors="surrogateescape"))
        if size > LONGEST_TEXT:
            raise ImageError(f"{where}: the {column} has {size} bytes; the maximum is {LONGEST_TEXT}")
    if not is_text(label or ""):
        raise ImageError(f"{where}: the label is not UTF-8; save the file as UTF-8")
    x0, y0, x1, y1 = (_pixels(values.get(column, ""), column, where) for column in _CORNERS)
    if not (x0 < x1 and y0 < y1):
        raise ImageError(
            f"{where}: x0 must be less than x1, and y0 less than y1; the box is {x0:g},{y0:g},{x1:g},{y1:g}"
        )
    return path, Region(Box(x0, y0, x1, y1), label)


def _pixels(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_COORDINATE:  # false for NaN
        raise ImageError(f"{where}: {column} must be a number of pixels, not {short(text, 60)!r}")
    return value


def classes_of_labels(
    labels: Collection[str], class_count: int, class_labels: Sequence[str] | None
) -> Mapping[str, Collection[int]] | None:
    """Find the classes of the model that labels of objects name.

    Args:
        labels: Labels or class indices, such as `Regions.labels`.
        class_count: Number of classes of the model.
        class_labels: Labels of all classes of the model, or None.

    Returns:
        Classes by label, empty for labels that name none; or None if no label names a class. Then the objects of an
        image all count, whatever is explained.
    """
    found: dict[str, Collection[int]] = {}
    for label in labels:
        target = read_target(label)
        if isinstance(target, int):
            found[label] = [target] if 0 <= target < class_count else []
        else:
            found[label] = [] if class_labels is None else classes_with_label(target, class_labels)
    return found if any(found.values()) else None


def region_mask(
    regions: Sequence[Region], image: LoadedImage, target: int, classes: Mapping[str, Collection[int]] | None
) -> Mask | None:
    """Draw the objects of a class on the model's view.

    Args:
        regions: Objects of the image, as `Regions.of` returns them.
        image: The image.
        target: Class index. Objects without a label count for every class.
        classes: What `classes_of_labels` returned.

    Returns:
        True at pixels whose centres lie in an object, of shape (H, W). It is False everywhere if the objects were
        cropped away. None if there are no objects of the class.

    Raises:
        ImageError: If the file was made for an image of another size.
    """
    chosen = [one for one in regions if classes is None or one.label is None or target in classes[one.label]]
    if not chosen:
        return None
    size = image.view.shape[:2]
    result = np.zeros(size, np.bool_)
    for one in chosen:
        if one.image_size not in (None, image.size):
            theirs, ours = (f"{width}x{height}" for width, height in (one.image_size or (0, 0), image.size))
            raise ImageError(
                f"{image.name}: the regions are those of an image of {theirs} pixels, but the upright image has "
                f"{ours}; make them for this image"
            )
        result |= one.shape.mask(image.placement, (size[0], size[1]))
    return result
