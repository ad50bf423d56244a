"""Reference implementations of the methods in NumPy float64, by slow and literal loops."""

from __future__ import annotations

import numpy as np


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return |found - expected| / |expected|, with both as one vector."""
    assert found.shape == expected.shape
    assert np.linalg.norm(expected) > 0
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
