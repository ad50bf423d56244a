"""Compare the results of two tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# One level of 8-bit gray, the resolution of displayed heatmaps.
HEAT = 1 / 255
# In every implementation, rounding may flip a rectifier, which changes a gradient by up to a few percent.
GRADIENT = 0.05
# Float32 rounding through a hundred layers.
LOGITS = 1e-3
# One step of the colormap is four levels with half weight, and the blend is rounded.
LEVELS = 3


def heatmaps(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare heatmaps by their largest pixel difference, over images whose map is not zero in both results."""
    shown = (ours.max((1, 2)) > 0) | (theirs.max((1, 2)) > 0)
    error = float(np.abs(ours - theirs)[shown].max()) if shown.any() else None
    return _verdict("largest difference of a heatmap in [0,1]", error, HEAT)


def gradients(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare gradients by their relative L2 difference, as the median over the images."""
    flat, other = (values.reshape(len(values), -1).astype(np.float64) for values in (ours, theirs))
    norms = np.linalg.norm(flat, axis=1)
    error = float(np.median(np.linalg.norm(flat - other, axis=1) / norms)) if (norms > 0).all() else None
    return _verdict("relative L2 difference of the gradient, median of the images", error, GRADIENT)


def logits(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare logits by their relative L2 difference."""
    return _verdict(
        "relative L2 difference of the logits", float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours)), LOGITS
    )


def figures(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare figures by their largest pixel difference."""
    error = float(np.abs(ours.astype(int) - theirs.astype(int)).max())
    return _verdict("largest difference of a pixel in 0..255", error, LEVELS)


def counts(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare the numbers of explained images, because the figures differ in colors and layout."""
    return _verdict("difference in the number of figures", float(abs(int(ours[0]) - int(theirs[0]))), 0)


def correlation(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Return the median over the images of Pearson's correlation, for heatmaps, gradients or logits.

    Images with a constant result have no correlation. Return None if all results are constant.
    """
    flat, other = (values.reshape(len(values), -1).astype(np.float64) for values in (ours, theirs))
    usable = [(one, two) for one, two in zip(flat, other, strict=True) if one.std() > 0 and two.std() > 0]
    return float(np.median([np.corrcoef(one, two)[0, 1] for one, two in usable])) if usable else None


def _verdict(measure: str, error: float | None, tolerance: float) -> dict[str, Any]:
    """Return the result of a comparison; `same` is None if nothing could be compared."""
    same = None if error is None else bool(error <= tolerance)
    return {"measure": measure, "error": error, "tolerance": tolerance, "same": same}


def agreement_of(compare: Any, ours: np.ndarray, theirs: np.ndarray) -> Mapping[str, Any]:
    """Compare two results with `compare`; different shapes count as different results."""
    if ours.shape != theirs.shape:
        return {
            "measure": f"shape {theirs.shape} instead of {ours.shape}",
            "error": None,
            "tolerance": 0,
            "same": False,
        }
    return compare(ours, theirs)
