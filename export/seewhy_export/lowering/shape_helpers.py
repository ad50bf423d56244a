"""Helpers for the lowerings: crop, pad, spread, and linear maps along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def expand(values: Sequence[int], count: int) -> list[int]:
    """Return one value per spatial dimension, for which ATen accepts a single number."""
    return list(values) * count if len(values) == 1 else list(values)


def pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Pad the trailing dimensions with zeros, last dimension first as in ATen; negative numbers cut."""
    padded: Tensor = aten.constant_pad_nd.default(x, padding, 0.0)
    return padded


def pad_ends(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Pad with zeros, with one number before and after for each trailing dimension, first dimension first."""
    ends = list(zip(reversed(before), reversed(after), strict=True))
    return pad(x, [size for pair in ends for size in pair]) if any(before) or any(after) else x


def fit(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cut or zero-pad the trailing dimensions at their ends to `sizes`."""
    missing = [wanted - size for size, wanted in zip(x.shape[-len(sizes) :], sizes, strict=True)]
    return pad_ends(x, [0] * len(sizes), missing)


def put_zeros_between(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Move element i of the trailing dimensions to i * stride, with zeros between and after."""
    if all(s == 1 for s in stride):
        return x
    lead = list(x.shape[: -len(stride)])
    spatial = list(x.shape[-len(stride) :])
    apart = x.reshape(lead + [size for pair in zip(spatial, [1] * len(stride), strict=True) for size in pair])
    padding: list[int] = []
    for s in reversed(stride):
        padding += [0, s - 1, 0, 0]
    return pad(apart, padding).reshape(lead + [size * s for size, s in zip(spatial, stride, strict=True)])


def constant(values: Any, like: Tensor) -> Tensor:
    """Convert nested lists of numbers to a tensor with the dtype and device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def apply_along(x: Tensor, matrix: Tensor, dimension: int) -> Tensor:
    """Apply a matrix (new size, old size) along a trailing dimension, given as a negative number."""
    if dimension == -1:
        return x @ matrix.t()
    shape = list(x.shape)
    shape[dimension] = matrix.shape[0]
    return (matrix @ x.flatten(dimension + 1)).reshape(shape) if dimension < -2 else matrix @ x
