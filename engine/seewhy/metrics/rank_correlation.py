"""Spearman's rank correlation, by which metrics compare two maps of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rank values from the smallest to the largest; equal values share the mean of their ranks.

    Args:
        values: Finite numbers of any shape.

    Returns:
        Ranks from 1 to the number of values, float64 of shape (number of values,), in the order of the flattened array.
    """
    _, group, counts = np.unique(np.ravel(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    # A group of equal values has the ranks last - count + 1 to last, whose mean this is.
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[np.reshape(group, -1)]
    return ranks


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Compute Spearman's rank correlation: Pearson's correlation of the average ranks, in float64.

    Args:
        first: Numbers of any shape, for example an attribution map of shape (H, W).
        second: Numbers of the same shape.

    Returns:
        The correlation, from -1 to 1. NaN if either array is empty, constant, or holds NaN or infinity.

    Raises:
        ValueError: If the shapes differ.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"arrays of one shape are compared, not {np.shape(first)} and {np.shape(second)}")
    if np.size(first) == 0 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    a, b = (ranks - ranks.mean() for ranks in map(average_ranks, (first, second)))
    squares = float(a @ a) * float(b @ b)
    # Rounding may leave the interval by a few units in the last place.
    return float(np.clip(a @ b / np.sqrt(squares), -1, 1)) if squares > 0 else float("nan")
