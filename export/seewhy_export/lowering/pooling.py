"""Lowerings of max and average pools in two and three dimensions, and of their gradients.

The public functions take the arguments of the ATen operators that they replace.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy_export.lowering.blocked_layout import to_blocked_layout
from seewhy_export.lowering.shape_helpers import apply_along, constant, expand, pad_ends, put_zeros_between

aten: Any = torch.ops.aten


def _add_at_winners(gradient: Tensor, x: Tensor, indices: Tensor, rank: int) -> Tensor:
    """Add each window's gradient at its winner; windows may overlap.

    Winners are found by index, not by value: in a flat area, PyTorch takes the first element of a tie.
    """
    planes = math.prod(gradient.shape[:-rank])
    empty = gradient.new_zeros([planes, math.prod(x.shape[-rank:])])
    return empty.scatter_add(1, indices.reshape([planes, -1]), gradient.reshape([planes, -1])).reshape(x.shape)


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
    """Add the gradient at the winners of max_pool2d."""
    return to_blocked_layout(_add_at_winners(gradient, x, indices, 2))


def max_pool3d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Add the gradient at the winners of max_pool3d."""
    return _add_at_winners(gradient, x, indices, 3)


def _even_kernel(x: Tensor, pooled: Sequence[int]) -> list[int] | None:
    """Return the kernel of the plain pool that equals an adaptive pool, or None if the sizes do not divide."""
    sizes = x.shape[-len(pooled) :]
    if any(size % wanted for size, wanted in zip(sizes, pooled, strict=True)):
        return None
    return [size // wanted for size, wanted in zip(sizes, pooled, strict=True)]


def _adaptive_window(size: int, pooled: int, i: int) -> range:
    """Return the elements that adaptive pooling combines in output i, along one dimension."""
    return range(i * size // pooled, -((-(i + 1) * size) // pooled))


def adaptive_max_pool2d(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute a plain pool if the sizes divide, else the maximum over gathered windows.

    Returns:
        Maxima, and their flat indices within each map; of several equal ones the first in row-major order.
    """
    kernel = _even_kernel(x, output_size)
    if kernel is not None:
        values, indices = aten.max_pool2d_with_indices.default(x, kernel, kernel)
        return values, indices
    width = x.shape[-1]
    rows, columns = (
        [_adaptive_window(s, p, i) for i in range(p)] for s, p in zip(x.shape[-2:], output_size, strict=True)
    )
    windows = [[r * width + c for r in row for c in column] for row, column in itertools.product(rows, columns)]
    longest = max(len(window) for window in windows)
    # Repeat the last index so that all windows have one length. This changes neither the maximum nor the first winner.
    positions = torch.tensor([w + w[-1:] * (longest - len(w)) for w in windows], device=x.device)
    shape = [*x.shape[:-2], len(windows), longest]
    values, winner = x.flatten(-2).index_select(-1, positions.flatten()).reshape(shape).max(-1)
    offsets = torch.arange(len(windows), device=x.device) * longest
    indices = positions.flatten()[winner + offsets]
    pooled = [*x.shape[:-2], *output_size]
    return values.reshape(pooled), indices.reshape(pooled)


def adaptive_max_pool2d_backward(gradient: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """Add the gradient at the winners of adaptive_max_pool2d."""
    return to_blocked_layout(_add_at_winners(gradient, x, indices, 2))


def _plain_avg_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return an average pool without padding, in which every window divides by the same number."""
    pool = {2: aten.avg_pool2d.default, 3: aten.avg_pool3d.default}[len(kernel)]
    pooled: Tensor = pool(x, kernel, stride)
    return pooled


def _window_counts(size: int, pooled: int, kernel: int, stride: int, padding: int, include_padding: bool) -> list[int]:
    """Return the number of elements by which each window of an average pool divides, along one dimension."""
    counts = []
    for i in range(pooled):
        start = i * stride - padding
        # Padding counts, but elements that ceil_mode adds beyond it do not.
        end = min(start + kernel, size + padding)
        counts.append(end - start if include_padding else min(end, size) - max(start, 0))
    return counts


def _over_own_divisors(
    values: Tensor,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Convert means over the kernel's area to means over each window's own count."""
    if divisor_override is not None:
        return values * (math.prod(kernel) / divisor_override)
    pooled = values.shape[-len(kernel) :]
    for i, k in enumerate(kernel):
        counts = _window_counts(sizes[i], pooled[i], k, stride[i], padding[i], count_include_pad)
        if set(counts) != {k}:
            weights = constant([k / count for count in counts], values)
            values = values * weights.reshape([-1] + [1] * (len(kernel) - 1 - i))
    return values


def _avg_pool(
    rank: int,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Return an average pool without padding over the padded map, corrected for uneven divisors.

    ONNX has no custom divisor, and onnxruntime warns about shapes in which windows start in the padding.
    """
    kernel, padding = expand(kernel_size, rank), expand(padding, rank)
    stride = expand(stride, rank) if len(stride) else kernel
    if x.dim() == rank + 2 and not (any(padding) or ceil_mode or divisor_override is not None):
        return NotImplemented  # ONNX's own operator is enough.
    lead, sizes = list(x.shape[:-rank]), list(x.shape[-rank:])
    pooled = [_pooled_size(*window, ceil_mode) for window in zip(sizes, kernel, stride, padding, strict=True)]
    after = [
        (n - 1) * s + k - size - p for n, s, k, size, p in zip(pooled, stride, kernel, sizes, padding, strict=True)
    ]
    padded = pad_ends(x.reshape([-1, 1, *sizes] if len(lead) == 1 else x.shape), padding, after)
    values = _plain_avg_pool(padded, kernel, stride).reshape(lead + pooled)
    return _over_own_divisors(values, sizes, kernel, stride, padding, count_include_pad, divisor_override)


def _pooled_size(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Return the number of windows along one dimension."""
    free = size + 2 * padding - kernel
    pooled = (-(-free // stride) if ceil_mode else free // stride) + 1
    # A last window that would start after the left padding and the map is dropped.
    return pooled - 1 if ceil_mode and (pooled - 1) * stride >= size + padding else pooled


def avg_pool2d(x: Tensor, *arguments: Any, **options: Any) -> Any:
    """Return an average pool in two dimensions, or NotImplemented if ONNX's own is enough."""
    return _avg_pool(2, x, *arguments, **options)


def avg_pool3d(x: Tensor, *arguments: Any, **options: Any) -> Any:
    """Return an average pool in three dimensions, or NotImplemented if ONNX's own is enough."""
    return _avg_pool(3, x, *arguments, **options)


def _avg_pool_backward(
    rank: int,
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Return an average pool of stride 1 over the gradient, spread by the stride and corrected for uneven divisors."""
    kernel, padding = expand(kernel_size, rank), expand(padding, rank)
    stride = expand(stride, rank) if len(stride) else kernel
    lead, sizes = list(x.shape[:-rank]), list(x.shape[-rank:])
    gradient = _over_own_divisors(gradient, sizes, kernel, stride, padding, count_include_pad, divisor_override)
    spread = put_zeros_between(gradient, stride)
    # The gradient at pixel i sums the windows that cover it: those that start in i - k + 1 + p ... i + p.
    before = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    wanted = [size + k - 1 for size, k in zip(sizes, kernel, strict=True)]
    after = [w - have - b for w, have, b in zip(wanted, spread.shape[-rank:], before, strict=True)]
    padded = pad_ends(spread, before, after)
    if len(lead) == 1:
        return _plain_avg_pool(padded[:, None], kernel, [1] * rank)[:, 0]
    return _plain_avg_pool(padded, kernel, [1] * rank)


def avg_pool2d_backward(gradient: Tensor, x: Tensor, *window: Any) -> Tensor:
    """Compute the gradient of avg_pool2d."""
    return _avg_pool_backward(2, gradient, x, *window)


def avg_pool3d_backward(gradient: Tensor, x: Tensor, *window: Any) -> Tensor:
    """Compute the gradient of avg_pool3d."""
    return _avg_pool_backward(3, gradient, x, *window)


def _adaptive_matrix(size: int, pooled: int, like: Tensor) -> Tensor:
    """Return a matrix (pooled, size) whose row i averages the elements of output i of an adaptive pool."""
    windows = [_adaptive_window(size, pooled, i) for i in range(pooled)]
    return constant([[1.0 / len(window) if j in window else 0.0 for j in range(size)] for window in windows], like)


def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Compute a plain average pool if the sizes divide, else one constant matrix product for each dimension."""
    kernel = _even_kernel(x, output_size)
    if kernel is not None and all(k == 1 for k in kernel):
        return x.clone()
    if kernel is not None:
        return _plain_avg_pool(x, kernel, kernel)
    rank = len(output_size)
    for i in range(-rank, 0):
        x = apply_along(x, _adaptive_matrix(x.shape[i], output_size[i], x), i)
    return x


def adaptive_avg_pool_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient of an adaptive average pool, by the transposes of the forward pass."""
    rank = x.dim() - 2
    kernel = _even_kernel(x, gradient.shape[2:])
    if kernel is not None and all(k == 1 for k in kernel):
        return gradient.clone()
    if kernel is not None:
        return _avg_pool_backward(rank, gradient, x, kernel, kernel, [0] * rank, False, True, None)
    for i in range(-rank, 0):
        gradient = apply_along(gradient, _adaptive_matrix(x.shape[i], gradient.shape[i], gradient).t(), i)
    return gradient
