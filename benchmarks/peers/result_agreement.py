"""Compare the results of two tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# One level of 8-bit grey, which is what a heatmap is drawn with.
HEAT = 1 / 255
# Rounding flips a rectifier now and then, in every implementation, which moves a gradient by up to some percent.
GRADIENT = 0.05
# Float32 through a hundred layers.
LOGITS = 1e-3
# One step of the colour map is four levels, drawn with half weight; and the blend is rounded.
LEVELS = 3


def heatmaps(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Largest difference of any pixel, over the images whose map is not all zero here or there."""
    shown = (ours.max((1, 2)) > 0) | (theirs.max((1, 2)) > 0)
    error = float(np.abs(ours - theirs)[shown].max()) if shown.any() else None
    return _verdict("largest difference of a heatmap in [0,1]", error, HEAT)


def gradients(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Median over the images of the relative L2 difference."""
    flat, other = (values.reshape(len(values), -1).astype(np.float64) for values in (ours, theirs))
    norms = np.linalg.norm(flat, axis=1)
    error = float(np.median(np.linalg.norm(flat - other, axis=1) / norms)) if (norms > 0).all() else None
    return _verdict("relative L2 difference of the gradient, median of the images", error, GRADIENT)


def logits(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Relative L2 difference."""
    return _verdict(
        "relative L2 difference of the logits", float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours)), LOGITS
    )


def pictures(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Largest difference of any pixel."""
    error = float(np.abs(ours.astype(int) - theirs.astype(int)).max())
    return _verdict("largest difference of a pixel in 0..255", error, LEVELS)


def counts(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """As many photographs were done; the pictures differ in colours and layout."""
    return _verdict("difference in the number of pictures", float(abs(int(ours[0]) - int(theirs[0]))), 0)


def _verdict(measure: str, error: float | None, tolerance: float) -> dict[str, Any]:
    """`same` is None where nothing could be compared."""
    same = None if error is None else bool(error <= tolerance)
    return {"measure": measure, "error": error, "tolerance": tolerance, "same": same}


def of(compare: Any, ours: np.ndarray, theirs: np.ndarray) -> Mapping[str, Any]:
    if ours.shape != theirs.shape:
        return {
            "measure": f"shape {theirs.shape} instead of {ours.shape}",
            "error": None,
            "tolerance": 0,
            "same": False,
        }
    return compare(ours, theirs)
