"""Gradients of convolutions with respect to their input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy_export.lowering.blocked_layout import BLOCK, is_blocked, to_blocked_layout
from seewhy_export.lowering.shape_helpers import expand, fit, pad

aten: Any = torch.ops.aten


def _flip_and_swap(weight: Tensor, groups: int) -> Tensor:
    """Convert weights (Cout, Cin/g, *k) to (Cin, Cout/g, *k) with the kernel reversed: those of the transposed map."""
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
    """Compute the gradient of a convolution's input; weights are constants here.

    The arguments are those of `aten.convolution_backward`.

    Returns:
        The gradient of `x`, and None for weight and bias.

    Raises:
        NotImplementedError: If a gradient of the weights is needed, so that they depend on the images.
    """
    if output_mask[1] or output_mask[2]:
        raise NotImplementedError("the weights of a convolution depend on the images")
    rank = weight.dim() - 2
    stride, padding, dilation = (expand(values, rank) for values in (stride, padding, dilation))
    sizes = list(x.shape[2:])
    if transposed:
        direct = aten.convolution.default(gradient, weight, None, stride, padding, dilation, False, [0] * rank, groups)
        # A dilated kernel allows output padding beyond the stride, which makes the result one step too long.
        return fit(direct, sizes), None, None
    conv = _ConvolutionBackward(gradient, weight, stride, padding, dilation, groups, sizes)
    results = (strategy(conv) for strategy in _STRATEGIES)
    return next(result for result in results if result is not None), None, None


@dataclass(frozen=True)
class _ConvolutionBackward:
    """Arguments of a convolution's backward pass."""

    gradient: Tensor
    """Gradient of the convolution's output."""
    weight: Tensor
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    sizes: Sequence[int]
    """Sizes (h, w) of the convolution's input."""

    @property
    def kernel(self) -> list[int]:
        """Kernel sizes."""
        return list(self.weight.shape[2:])

    @property
    def reach(self) -> list[int]:
        """Distances from a kernel's first tap to its last, in elements."""
        return [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]

    @property
    def channels(self) -> int:
        """Number of channels of the convolution's input."""
        return int(self.weight.shape[1]) * self.groups


def _unstrided(conv: _ConvolutionBackward) -> Tensor | None:
    """Handle stride 1 by a convolution with the reversed kernel, which is one Conv in the blocked layout."""
    if any(s > 1 for s in conv.stride) or any(r < p for r, p in zip(conv.reach, conv.padding, strict=True)):
        return None
    return _correlate(conv, conv.gradient)


def _pointwise(conv: _ConvolutionBackward) -> Tensor | None:
    """Handle strided 1x1 kernels by a 1x1 convolution whose result is spread with zeros between."""
    if any(k > 1 for k in conv.kernel) or any(conv.padding):
        return None
    return to_blocked_layout(_spread(_correlate(conv, conv.gradient), conv.stride, conv.sizes))


def _depthwise(conv: _ConvolutionBackward) -> Tensor | None:
    """Handle depthwise convolutions with a small stride by spreading with zeros and one Conv.

    In the blocked layout this costs less than a transposed convolution for each channel outside of it.
    """
    fits = conv.groups == conv.channels and conv.groups == conv.gradient.shape[1] and is_blocked(conv.gradient)
    if not fits or max(conv.stride) > 2 or any(r < p for r, p in zip(conv.reach, conv.padding, strict=True)):
        return None
    sizes = [size - r + 2 * p for size, r, p in zip(conv.sizes, conv.reach, conv.padding, strict=True)]
    return _correlate(conv, _spread(conv.gradient, conv.stride, sizes))


def _by_phases(conv: _ConvolutionBackward) -> Tensor | None:
    """Handle stride 2 by one Conv for each parity of row and column, with the taps that reach it, and interleave them.

    The arithmetic is that of a transposed convolution, but it runs in the blocked layout and on every thread.
    """
    stride, padding, kernel = conv.stride, conv.padding, conv.kernel
    suitable = all(size % 2 == 0 for size in conv.sizes) and all(k > 2 for k in kernel)
    if list(stride) != [2, 2] or not suitable or conv.groups > 1 or max(conv.dilation) > 1 or conv.channels % BLOCK:
        return None
    phases = [[_phase(i, *axis) for i in range(2)] for axis in zip(kernel, padding, conv.sizes, strict=True)]
    if any(min(phase.before, phase.after) < 0 for axis in phases for phase in axis):
        return None
    swapped = conv.weight.transpose(0, 1)
    results = []
    for row, column in itertools.product(*phases):
        taps = swapped.index_select(2, torch.tensor(row.taps)).index_select(3, torch.tensor(column.taps))
        padded = pad(conv.gradient, [column.before, column.after, row.before, row.after])
        results.append(aten.convolution.default(padded, taps, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1))
    return to_blocked_layout(_interleave(results))


def _transposed(conv: _ConvolutionBackward) -> Tensor | None:
    """Handle everything else by ConvTranspose."""
    axes = zip(conv.gradient.shape[2:], conv.stride, conv.padding, conv.reach, strict=True)
    reached = [(g - 1) * s - 2 * p + r + 1 for g, s, p, r in axes]
    missing = [size - got for size, got in zip(conv.sizes, reached, strict=True)]
    result: Tensor = aten.convolution.default(
        conv.gradient, conv.weight, None, conv.stride, conv.padding, conv.dilation, True, missing, conv.groups
    )
    return to_blocked_layout(result)


_STRATEGIES = (_unstrided, _pointwise, _depthwise, _by_phases, _transposed)
"""Strategies in order: the first that applies is the fastest on the CPU. Each returns None if it does not apply."""


def _correlate(conv: _ConvolutionBackward, gradient: Tensor) -> Tensor:
    """Convolve with the reversed kernel at stride 1."""
    rank = len(conv.sizes)
    pads = [r - p for r, p in zip(conv.reach, conv.padding, strict=True)]
    flipped = _flip_and_swap(conv.weight, conv.groups)
    result: Tensor = aten.convolution.default(
        gradient, flipped, None, [1] * rank, pads, conv.dilation, False, [0] * rank, conv.groups
    )
    return result


@dataclass(frozen=True)
class _Phase:
    """Taps along one axis that reach every second element of the convolution's input."""

    taps: list[int]
    """Indices of the taps, the last first."""
    before: int
    """Number of zeros before the gradient; negative if it cannot be padded."""
    after: int
    """Number of zeros after the gradient; negative if it cannot be padded."""


def _phase(parity: int, kernel: int, padding: int, size: int) -> _Phase:
    """Return the phase of one parity. Output j reaches element 2 a + parity by tap t = 2 a + parity - 2 j + padding."""
    first, shift = (parity + padding) % 2, (parity + padding) // 2
    taps = list(range(first, kernel, 2))[::-1]
    outputs = (size + 2 * padding - kernel) // 2 + 1
    return _Phase(taps, len(taps) - 1 - shift, size // 2 + shift - outputs)


def _interleave(phases: Sequence[Tensor]) -> Tensor:
    """Interleave four (N, C, h, w), one for each parity of row and column, to (N, C, 2h, 2w).

    This uses a transposed convolution. DepthToSpace does the same, but takes onnxruntime five times as long on the CPU.
    """
    channels, *size = phases[0].shape[1:]
    stacked = torch.stack(list(phases), 2).reshape([-1, 4 * channels, *size])
    weight = torch.eye(4, dtype=stacked.dtype, device=stacked.device).reshape([4, 1, 2, 2]).repeat([channels, 1, 1, 1])
    result: Tensor = aten.convolution.default(stacked, weight, None, [2, 2], [0, 0], [1, 1], True, [0, 0], channels)
    return result


def _spread(x: Tensor, stride: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Move element i of each map to i * stride in a map of `sizes`, with zeros everywhere else.

    This is a depthwise transposed 1x1 convolution, the fastest such operator in onnxruntime.
    """
    missing = [size - (got - 1) * s - 1 for size, got, s in zip(sizes, x.shape[2:], stride, strict=True)]
    channels, rank = x.shape[1], len(sizes)
    ones = torch.ones([channels, 1, *[1] * rank], dtype=x.dtype, device=x.device)
    result: Tensor = aten.convolution.default(x, ones, None, stride, [0] * rank, [1] * rank, True, missing, channels)
    return result
