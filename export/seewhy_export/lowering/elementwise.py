"""Forward operators that torch.onnx could only take apart by tracing the whole graph again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(x > threshold, x, value)


def sgn(x: Tensor) -> Any:
    return NotImplemented if x.is_complex() else torch.sign(x)


def var(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """The mean squared distance from the mean, n - correction being what it is divided by; 1 where none is given."""
    dimensions = list(dim) if dim else list(range(x.dim()))
    count = math.prod(x.shape[d] for d in dimensions)
    distance = x - x.mean(dimensions, keepdim=True)
    return (distance * distance).sum(dimensions, keepdim=keepdim) / (count - (1 if correction is None else correction))
