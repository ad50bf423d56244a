"""The gradient of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .shapes import expand, fit, put_zeros_between

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
    zeros = [0] * rank
    sizes, kernel = list(x.shape[2:]), list(weight.shape[2:])
    if transposed:
        direct = aten.convolution.default(gradient, weight, None, stride, padding, dilation, False, zeros, groups)
        # Output padding beyond the stride, which a dilated kernel allows, gives the way back one step too many.
        return fit(direct, sizes), None, None
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if all(s == 1 for s in stride) and all(r >= p for r, p in zip(reach, padding, strict=True)):
        # A correlation with the kernel reversed: one Conv, which onnxruntime runs in its blocked layout.
        pads = [r - p for r, p in zip(reach, padding, strict=True)]
        flipped = _flip_and_swap(weight, groups)
        result = aten.convolution.default(gradient, flipped, None, [1] * rank, pads, dilation, False, zeros, groups)
    elif all(k == 1 for k in kernel) and not any(padding):
        flipped = _flip_and_swap(weight, groups)
        small = aten.convolution.default(gradient, flipped, None, [1] * rank, zeros, dilation, False, zeros, groups)
        result = fit(put_zeros_between(small, stride), sizes)
    else:
        reached = [
            (g - 1) * s - 2 * p + r + 1 for g, s, p, r in zip(gradient.shape[2:], stride, padding, reach, strict=True)
        ]
        missing = [size - got for size, got in zip(sizes, reached, strict=True)]
        result = aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, missing, groups)
    return result, None, None
