"""The gradient of convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy_export.lowering.blocked_layout import BLOCK, blocked, is_blocked
from seewhy_export.lowering.shape_helpers import expand, fit, pad

aten: Any = torch.ops.aten


def _flip_and_swap(weight: Tensor, groups: int) -> Tensor:
    """(Cout, Cin/g, *k) -> (Cin, Cout/g, *k) with the kernel reversed: the weights of the transposed map."""
    out_channels, in_channels, *kernel = weight.shape
    split = weight.reshape([groups, out_channels // groups, in_channels, *kernel])
    swapped = split.transpose(1, 2).reshape([groups * in_channels, out_channels // groups, *kernel])
    return swapped.flip(list(range(2, weight.dim()))) if math.prod(kernel) > 1 else swapped


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient of a convolution's input; weights are constants here."""
    if output_mask[1] or output_mask[2]:
        raise NotImplementedError("the weights of a convolution depend on the images")
    rank = weight.dim() - 2
    stride, padding, dilation = (expand(values, rank) for values in (stride, padding, dilation))
    sizes = list(x.shape[2:])
    if transposed:
        direct = aten.convolution.default(gradient, weight, None, stride, padding, dilation, False, [0] * rank, groups)
        # Output padding beyond the stride, which a dilated kernel allows, gives the way back one step too many.
        return fit(direct, sizes), None, None
    way = _Way(gradient, weight, stride, padding, dilation, groups, sizes)
    return next(result for go in _WAYS if (result := go(way)) is not None), None, None


@dataclass(frozen=True)
class _Way:
    """What leads back through a convolution."""

    gradient: Tensor
    weight: Tensor
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    sizes: Sequence[int]
    """(h, w) of the convolution's input."""

    @property
    def kernel(self) -> list[int]:
        return list(self.weight.shape[2:])

    @property
    def reach(self) -> list[int]:
        """Elements from a kernel's first tap to its last."""
        return [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]

    @property
    def channels(self) -> int:
        """Of the convolution's input."""
        return int(self.weight.shape[1]) * self.groups


def _unstrided(way: _Way) -> Tensor | None:
    """Stride 1: a correlation with the kernel reversed, which is one Conv, in the blocked layout."""
    if any(s > 1 for s in way.stride) or any(r < p for r, p in zip(way.reach, way.padding, strict=True)):
        return None
    return _correlate(way, way.gradient)


def _pointwise(way: _Way) -> Tensor | None:
    """1x1 with a stride: a 1x1 convolution, and zeros put between what it gives."""
    if any(k > 1 for k in way.kernel) or any(way.padding):
        return None
    return blocked(_spread(_correlate(way, way.gradient), way.stride, way.sizes))


def _depthwise(way: _Way) -> Tensor | None:
    """Depthwise with a small stride: zeros put between, and one Conv.

    They cost less arithmetic in the blocked layout than a transposed convolution for each channel does outside of it.
    """
    fits = way.groups == way.channels and way.groups == way.gradient.shape[1] and is_blocked(way.gradient)
    if not fits or max(way.stride) > 2 or any(r < p for r, p in zip(way.reach, way.padding, strict=True)):
        return None
    sizes = [size - r + 2 * p for size, r, p in zip(way.sizes, way.reach, way.padding, strict=True)]
    return _correlate(way, _spread(way.gradient, way.stride, sizes))


def _by_phases(way: _Way) -> Tensor | None:
    """Stride 2: a Conv for each parity of row and column, of the kernel's taps that meet it, laid side by side.

    As much arithmetic as a transposed convolution, but in the blocked layout, and on every thread.
    """
    stride, padding, kernel = way.stride, way.padding, way.kernel
    whole = all(size % 2 == 0 for size in way.sizes) and all(k > 2 for k in kernel)
    if list(stride) != [2, 2] or not whole or way.groups > 1 or max(way.dilation) > 1 or way.channels % BLOCK:
        return None
    lines = [[_phase(i, *axis) for i in range(2)] for axis in zip(kernel, padding, way.sizes, strict=True)]
    if any(min(phase.before, phase.after) < 0 for axis in lines for phase in axis):
        return None
    swapped = way.weight.transpose(0, 1)
    parts = []
    for row, column in itertools.product(*lines):
        taps = swapped.index_select(2, torch.tensor(row.taps)).index_select(3, torch.tensor(column.taps))
        padded = pad(way.gradient, [column.before, column.after, row.before, row.after])
        parts.append(aten.convolution.default(padded, taps, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1))
    return blocked(_interleave(parts))


def _transposed(way: _Way) -> Tensor | None:
    """Anything else: ConvTranspose."""
    axes = zip(way.gradient.shape[2:], way.stride, way.padding, way.reach, strict=True)
    reached = [(g - 1) * s - 2 * p + r + 1 for g, s, p, r in axes]
    missing = [size - got for size, got in zip(way.sizes, reached, strict=True)]
    result: Tensor = aten.convolution.default(
        way.gradient, way.weight, None, way.stride, way.padding, way.dilation, True, missing, way.groups
    )
    return blocked(result)


_WAYS = (_unstrided, _pointwise, _depthwise, _by_phases, _transposed)
"""In order: the first that applies is the quickest on the CPU."""


def _correlate(way: _Way, gradient: Tensor) -> Tensor:
    """With the kernel reversed, at stride 1."""
    rank = len(way.sizes)
    pads = [r - p for r, p in zip(way.reach, way.padding, strict=True)]
    flipped = _flip_and_swap(way.weight, way.groups)
    result: Tensor = aten.convolution.default(
        gradient, flipped, None, [1] * rank, pads, way.dilation, False, [0] * rank, way.groups
    )
    return result


@dataclass(frozen=True)
class _Phase:
    """Along one axis, the taps that lead to every second element of the convolution's input, last first."""

    taps: list[int]
    before: int
    after: int
    """Zeros in front of the gradient and behind it."""


def _phase(parity: int, kernel: int, padding: int, size: int) -> _Phase:
    """Output j meets element 2 a + parity by the tap t for which 2 j - padding + t is that element."""
    first, shift = (parity + padding) % 2, (parity + padding) // 2
    taps = list(range(first, kernel, 2))[::-1]
    outputs = (size + 2 * padding - kernel) // 2 + 1
    return _Phase(taps, len(taps) - 1 - shift, size // 2 + shift - outputs)


def _interleave(parts: Sequence[Tensor]) -> Tensor:
    """Four (N, C, h, w) for the parities of row and column -> (N, C, 2h, 2w), by a transposed convolution.

    DepthToSpace does the same, and takes onnxruntime five times as long on the CPU.
    """
    channels, *size = parts[0].shape[1:]
    beside = torch.stack(list(parts), 2).reshape([-1, 4 * channels, *size])
    places = torch.eye(4, dtype=beside.dtype, device=beside.device).reshape([4, 1, 2, 2]).repeat([channels, 1, 1, 1])
    result: Tensor = aten.convolution.default(beside, places, None, [2, 2], [0, 0], [1, 1], True, [0, 0], channels)
    return result


def _spread(x: Tensor, stride: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Put element i of each map at i * stride, in a map of `sizes`, and zeros everywhere else.

    A depthwise transposed convolution by one element: of the operators that do this, onnxruntime's quickest.
    """
    missing = [size - (got - 1) * s - 1 for size, got, s in zip(sizes, x.shape[2:], stride, strict=True)]
    channels, rank = x.shape[1], len(sizes)
    ones = torch.ones([channels, 1, *[1] * rank], dtype=x.dtype, device=x.device)
    result: Tensor = aten.convolution.default(x, ones, None, stride, [0] * rank, [1] * rank, True, missing, channels)
    return result
