"""Operators that ONNX cannot express, written in operators that it can.

One table: ATen operator -> function of the same arguments. Most are backward operators. The trace of the joint graph
takes it as its decomposition table, so the graph holds forward operators alone. Each function is exact algebra: in
float64 it agrees with PyTorch's kernel to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions

aten: Any = torch.ops.aten


def _expand(values: Sequence[int], count: int) -> list[int]:
    """ATen lets one number stand for all spatial dimensions."""
    return list(values) * count if len(values) == 1 else list(values)


def _fit(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cut or zero-pad the trailing dimensions at their ends, to `sizes`."""
    padding: list[int] = []
    for size, wanted in zip(reversed(x.shape[-len(sizes) :]), reversed(sizes), strict=True):
        padding += [0, wanted - size]
    return _pad(x, padding) if any(padding) else x


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Zeros at the ends of the trailing dimensions, last dimension first as in ATen; negative numbers cut."""
    padded: Tensor = aten.constant_pad_nd.default(x, padding, 0.0)
    return padded


def _put_zeros_between(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Spread the trailing dimensions: element i goes to i * stride, zeros between and behind."""
    if all(s == 1 for s in stride):
        return x
    lead = list(x.shape[: -len(stride)])
    spatial = list(x.shape[-len(stride) :])
    apart = x.reshape(lead + [size for pair in zip(spatial, [1] * len(stride), strict=True) for size in pair])
    padding: list[int] = []
    for s in reversed(stride):
        padding += [0, s - 1, 0, 0]
    return _pad(apart, padding).reshape(lead + [size * s for size, s in zip(spatial, stride, strict=True)])


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
        raise NotImplementedError("a convolution whose weights depend on the image")
    rank = weight.dim() - 2
    stride, padding, dilation = (_expand(values, rank) for values in (stride, padding, dilation))
    zeros = [0] * rank
    sizes, kernel = list(x.shape[2:]), list(weight.shape[2:])
    if transposed:
        direct = aten.convolution.default(gradient, weight, None, stride, padding, dilation, False, zeros, groups)
        # Output padding beyond the stride, which a dilated kernel allows, gives the way back one step too many.
        return _fit(direct, sizes), None, None
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if all(s == 1 for s in stride) and all(r >= p for r, p in zip(reach, padding, strict=True)):
        # A correlation with the kernel reversed: one Conv, which onnxruntime runs in its blocked layout.
        pads = [r - p for r, p in zip(reach, padding, strict=True)]
        flipped = _flip_and_swap(weight, groups)
        result = aten.convolution.default(gradient, flipped, None, [1] * rank, pads, dilation, False, zeros, groups)
    elif all(k == 1 for k in kernel) and not any(padding):
        flipped = _flip_and_swap(weight, groups)
        small = aten.convolution.default(gradient, flipped, None, [1] * rank, zeros, dilation, False, zeros, groups)
        result = _fit(_put_zeros_between(small, stride), sizes)
    else:
        reached = [
            (g - 1) * s - 2 * p + r + 1 for g, s, p, r in zip(gradient.shape[2:], stride, padding, reach, strict=True)
        ]
        missing = [size - got for size, got in zip(sizes, reached, strict=True)]
        result = aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, missing, groups)
    return result, None, None


def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """In evaluation mode batch norm is a scale for each channel, and so is its gradient."""
    if train:
        raise NotImplementedError("a norm by the statistics of the batch or image itself, not by stored ones")
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    return gradient * scale.reshape([1, -1] + [1] * (x.dim() - 2)), None, None


def max_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each window's gradient is added at its winner; windows may overlap.

    Winners by index and not by value: where a flat area ties, PyTorch takes the first element, and so must this.
    """
    height, width = x.shape[2:]
    planes = gradient.shape[0] * gradient.shape[1]
    empty = gradient.new_zeros([planes, height * width])
    return empty.scatter_add(1, indices.reshape([planes, -1]), gradient.reshape([planes, -1])).reshape(x.shape)


def _window_counts(size: int, pooled: int, kernel: int, stride: int, padding: int, include_padding: bool) -> list[int]:
    """How many elements each window of an average pool divides by, along one dimension."""
    counts = []
    for i in range(pooled):
        start = i * stride - padding
        # Padding counts, what ceil_mode adds beyond it does not.
        end = min(start + kernel, size + padding)
        counts.append(end - start if include_padding else min(end, size) - max(start, 0))
    return counts


def _avg_pool2d(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    pooled: Tensor = aten.avg_pool2d.default(x, kernel, stride)
    return pooled


def avg_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """An average pool of stride 1 over the gradient, spread by the stride and corrected for uneven divisors."""
    kernel = _expand(kernel_size, 2)
    stride = _expand(stride, 2) if len(stride) else kernel
    padding = _expand(padding, 2)
    sizes, pooled = list(x.shape[2:]), list(gradient.shape[2:])
    area = kernel[0] * kernel[1]
    if divisor_override is not None:
        gradient = gradient * (area / divisor_override)
    else:
        rows, columns = (
            _window_counts(sizes[i], pooled[i], kernel[i], stride[i], padding[i], count_include_pad) for i in range(2)
        )
        if set(rows) != {kernel[0]} or set(columns) != {kernel[1]}:
            weights = [[area / (r * c) for c in columns] for r in rows]
            gradient = gradient * torch.tensor(weights, dtype=gradient.dtype, device=gradient.device)
    spread = _put_zeros_between(gradient, stride)
    # The gradient at pixel i sums the windows that cover it: those that start in i - k + 1 + p ... i + p.
    left = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    wanted = [size + k - 1 for size, k in zip(sizes, kernel, strict=True)]
    right = [w - have - before for w, have, before in zip(wanted, spread.shape[2:], left, strict=True)]
    padded = _pad(spread, [left[1], right[1], left[0], right[0]])
    return _avg_pool2d(padded, kernel, [1, 1])


def _adaptive_matrix(size: int, pooled: int, like: Tensor) -> Tensor:
    """(pooled, size): row i averages the elements that adaptive pooling gives to output i."""
    rows = []
    for i in range(pooled):
        start, end = i * size // pooled, -((-(i + 1) * size) // pooled)
        rows.append([1.0 / (end - start) if start <= j < end else 0.0 for j in range(size)])
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _adaptive_matrices(x: Tensor, pooled: Sequence[int]) -> tuple[Tensor, Tensor]:
    return _adaptive_matrix(x.shape[2], pooled[0], x), _adaptive_matrix(x.shape[3], pooled[1], x)


def _even_kernel(x: Tensor, pooled: Sequence[int]) -> list[int] | None:
    """The kernel of the plain average pool that an adaptive one is, where its size divides."""
    height, width = x.shape[2:]
    return None if height % pooled[0] or width % pooled[1] else [height // pooled[0], width // pooled[1]]


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """A plain average pool where the size divides, else two constant matrix products."""
    kernel = _even_kernel(x, output_size)
    if kernel == [1, 1]:
        return x.clone()
    if kernel is not None:
        return _avg_pool2d(x, kernel, kernel)
    rows, columns = _adaptive_matrices(x, output_size)
    return rows @ (x @ columns.t())


def adaptive_avg_pool2d_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """The transposes of the forward pass."""
    kernel = _even_kernel(x, gradient.shape[2:])
    if kernel == [1, 1]:
        return gradient.clone()
    if kernel is not None:
        return avg_pool2d_backward(gradient, x, kernel, kernel, [0, 0], False, True, None)
    rows, columns = _adaptive_matrices(x, gradient.shape[2:])
    return rows.t() @ (gradient @ columns)


LOWERINGS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.native_batch_norm_backward.default: batch_norm_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Our lowerings, and PyTorch's own for every other backward operator that it has one for.

    PyTorch's forward decompositions stay out: ONNX has batch norm, GELU and the like as operators.
    """
    theirs = {target: f for target, f in core_aten_decompositions().items() if "backward" in str(target)}
    return {**theirs, **LOWERINGS}
