"""Types of arrays, and what several modules ask of them."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
_Float = TypeVar("_Float", np.float32, np.float64)


def first_not_finite(values: Floats) -> int | None:
    """The first row of `values` that holds NaN or infinity."""
    # NaN and infinity survive a sum, and one sum is much cheaper than a look at each element.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return None
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    return int(bad[0]) if bad.size else None


def softmax(values: NDArray[_Float]) -> NDArray[_Float]:
    """Over the last axis; -infinity becomes 0, and so does everything where nothing else is there."""
    highest = values.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # a difference that overflows is -infinity, which is right
        powers: NDArray[_Float] = np.exp(values - np.where(np.isfinite(highest), highest, 0))
    total = powers.sum(axis=-1, keepdims=True)
    powers /= np.where(total > 0, total, 1)
    return powers
