"""Array types, and functions on arrays that several modules use."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy._core import first_not_finite

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Float = TypeVar("Float", np.float32, np.float64)


def is_finite(values: Floats) -> bool:
    """Return whether an array holds neither NaN nor infinity."""
    return first_not_finite(np.ascontiguousarray(values)) is None


def softmax(values: NDArray[Float]) -> NDArray[Float]:
    """Return the softmax over the last axis.

    -infinity becomes 0, also if all values are -infinity.
    """
    highest = values.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # a difference that overflows is -infinity, which is correct here
        powers: NDArray[Float] = np.exp(values - np.where(np.isfinite(highest), highest, 0))
    total = powers.sum(axis=-1, keepdims=True)
    powers /= np.where(total > 0, total, 1)
    return powers


def sigmoid(values: NDArray[Float]) -> NDArray[Float]:
    """Return the logistic function of each value."""
    small = np.exp(-np.abs(values))  # never overflows
    result: NDArray[Float] = np.where(values >= 0, 1, small) / (1 + small)
    return result
