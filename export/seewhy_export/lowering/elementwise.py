"""Lowerings of forward operators that torch.onnx could decompose only by tracing the whole graph again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    """Return x where it exceeds the threshold, else `value`."""
    return torch.where(x > threshold, x, value)


def sgn(x: Tensor) -> Any:
    """Return the sign of real numbers; complex numbers are left to PyTorch."""
    return NotImplemented if x.is_complex() else torch.sign(x)


def var(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """Return the variance: the sum of squared distances from the mean, divided by n - correction.

    Args:
        x: Input.
        dim: Dimensions to reduce; None or an empty list reduces all.
        correction: Correction of the divisor; None is 1.
        keepdim: Whether reduced dimensions stay with size 1.
    """
    dimensions = list(dim) if dim else list(range(x.dim()))
    count = math.prod(x.shape[d] for d in dimensions)
    distance = x - x.mean(dimensions, keepdim=True)
    return (distance * distance).sum(dimensions, keepdim=keepdim) / (count - (1 if correction is None else correction))
