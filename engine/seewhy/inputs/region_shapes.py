"""Shapes of objects on an image, as masks of the model's view.

A pixel of the view belongs to a shape if its centre lies inside. Coordinates are pixels of the upright whole image; the
point (x, y) is a corner of pixels, so that the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Integers
from seewhy.images.resizing import Placement

Mask: TypeAlias = NDArray[np.bool_]
"""Mask of the model's view, of shape (H, W)."""

# Edges of a polygon that are drawn together, so that memory stays small.
_EDGES = 1024


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    x0: float
    y0: float
    x1: float
    """Right edge."""
    y1: float
    """Bottom edge."""

    def mask(self, placement: Placement, size: tuple[int, int]) -> Mask:
        """Return the mask of a view of size (H, W)."""
        x, y = _centres(placement, size)
        inside: Mask = ((self.y0 <= y) & (y < self.y1))[:, None] & ((self.x0 <= x) & (x < self.x1))
        return inside


@dataclass(frozen=True, eq=False)
class Polygons:
    """Union of polygons. A point is inside a polygon if a ray from it crosses the edges an odd number of times."""

    corners: Sequence[NDArray[np.float64]]
    """Corners (x, y) of each polygon, of shape (n, 2)."""

    def mask(self, placement: Placement, size: tuple[int, int]) -> Mask:
        """Return the mask of a view of size (H, W)."""
        scale = (placement.scale_x, placement.scale_y)
        result = np.zeros(size, np.bool_)
        for corners in self.corners:
            result |= _fill(corners / scale - (placement.left, placement.top), size)
        return result


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask of the whole image as COCO stores it: lengths of runs of 0, 1, 0, ... down the columns."""

    lengths: Integers
    """Lengths, whose sum is the number of pixels."""
    size: tuple[int, int]
    """(height, width) of the image."""

    def mask(self, placement: Placement, size: tuple[int, int]) -> Mask:
        """Return the mask of a view of size (H, W)."""
        x, y = _centres(placement, size)
        height, width = self.size
        inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
        rows, columns = (np.clip(at, 0, side - 1).astype(np.int64) for at, side in ((y, height), (x, width)))
        # The run that holds a pixel is the first one that ends behind it. Runs 1, 3, 5 ... belong to the object.
        runs = np.searchsorted(np.cumsum(self.lengths), columns * height + rows[:, None], side="right")
        result: Mask = inside & (runs % 2 == 1)
        return result


Shape: TypeAlias = Box | Polygons | RunLengths
"""Shape of an object."""


def _centres(placement: Placement, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x of the centres of the view's columns and y of those of its rows, on the whole image."""
    x = (np.arange(size[1], dtype=np.float64) + 0.5 + placement.left) * placement.scale_x
    y = (np.arange(size[0], dtype=np.float64) + 0.5 + placement.top) * placement.scale_y
    return x, y


def _fill(corners: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """Return the mask of one polygon whose corners are given in pixels of the view."""
    height, width = size
    y = np.arange(height)[:, None] + 0.5
    starts, ends = corners, np.roll(corners, -1, axis=0)
    crossings = np.zeros((height, width + 1), np.int64)
    for first in range(0, len(corners), _EDGES):
        (x0, y0), (x1, y1) = starts[first : first + _EDGES].T, ends[first : first + _EDGES].T
        rows, edges = np.nonzero((y0 <= y) != (y1 <= y))
        # The edge crosses the row here, and every pixel whose centre lies to the right is on its other side.
        x = x0[edges] + (rows + 0.5 - y0[edges]) * (x1 - x0)[edges] / (y1 - y0)[edges]
        np.add.at(crossings, (rows, np.ceil(np.clip(x, 0, width) - 0.5).clip(0, width).astype(np.int64)), 1)
    result: Mask = np.cumsum(crossings[:, :width], axis=1) % 2 == 1
    return result
