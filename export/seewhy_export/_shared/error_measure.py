"""Measure of how far a result is from a reference, and the bound that it must keep.

The measure is the relative L2 error ||value - reference|| / ||reference||, computed in float64. Its bound is the larger
of 1e-4 and four times PyTorch's own float32 error on the same input, but never more than 0.1.
"""

from __future__ import annotations

import math

from torch import Tensor

TOLERANCE = 1e-4
"""Relative L2 error that is always allowed for results computed in float32."""
FLOAT32_FACTOR = 4.0
"""Multiple of PyTorch's own float32 error that is allowed."""
LARGEST_BOUND = 0.1
"""Upper limit of the bound. Beyond it, agreement could not be told from a fault."""


def relative_error(value: Tensor, reference: Tensor) -> float | None:
    """Return the relative L2 error of a result.

    Args:
        value: Result, a tensor of any shape and dtype.
        reference: Reference for it.

    Returns:
        The error; infinity if the shapes differ; None if the reference is zero everywhere, which tests nothing.
    """
    if value.shape != reference.shape:
        return math.inf
    norm = float(reference.double().norm())
    return None if norm == 0 else float((value.double() - reference.double()).norm() / norm)


def error_bound(float32_error: float | None, tolerance: float = TOLERANCE) -> float:
    """Return the largest relative error that rounding explains.

    Args:
        float32_error: PyTorch's own float32 error on the same input; None if it is not known.
        tolerance: Error that is always allowed.
    """
    if float32_error is None or not math.isfinite(float32_error):
        return tolerance
    return min(LARGEST_BOUND, max(tolerance, FLOAT32_FACTOR * float32_error))


def is_within_bound(error: float | None, float32_error: float | None, tolerance: float = TOLERANCE) -> bool:
    """Tell whether a relative error keeps its bound. None, a zero reference, is no disagreement: it was not tested."""
    return error is None or error <= error_bound(float32_error, tolerance)
