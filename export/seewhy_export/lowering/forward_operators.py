"""Lowerings of forward operators that must be replaced before autograd differentiates them.

PyTorch decomposes these operators in C++, before a trace sees them, into memory formats and masks that ONNX cannot
express. The joint graph's forward pass therefore decomposes them itself, before autograd does. Each function takes the
arguments of the ATen operator of its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy_export._shared.torch_internals import registered_decomposition
from seewhy_export.lowering.blocked_layout import to_blocked_layout
from seewhy_export.lowering.onnx_masks import spread_over

aten: Any = torch.ops.aten


def adaptive_avg_pool1d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return the pool as a pool of maps of one row, as PyTorch computes it."""
    return adaptive_avg_pool2d(x.unsqueeze(-2), [1, *output_size]).squeeze(-2)


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return a mean if the output is 1x1; PyTorch's own pool would change the memory format by `as_strided_`."""
    if list(output_size) in ([1], [1, 1]):
        return mean(x, (-2, -1), keepdim=True)
    pooled: Tensor = aten._adaptive_avg_pool2d.default(x, list(output_size))
    return pooled


def adaptive_avg_pool3d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return a mean if the output is 1x1x1, for the same reason."""
    if list(output_size) in ([1], [1, 1, 1]):
        return mean(x, (-3, -2, -1), keepdim=True)
    pooled: Tensor = aten._adaptive_avg_pool3d.default(x, list(output_size))
    return pooled


class _GlobalMean(torch.autograd.Function):
    """Mean of each map of (N, C, h, w) as (N, C, 1, 1), whose gradient is spread over the map again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        means: Tensor = aten.mean.dim(x, (2, 3), True)
        return means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.size
        spread: Tensor = spread_over(to_blocked_layout(gradient, 1 / (height * width)), height, width)
        return spread


def mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return the mean. Over whole maps of (N, C, h, w), its gradient stays in onnxruntime's blocked layout."""
    maps = x.dim() == 4 and dim is not None and sorted(d % 4 for d in dim) == [2, 3] and dtype in (None, x.dtype)
    if not maps or not x.requires_grad or not all(isinstance(size, int) and size > 1 for size in x.shape[2:]):
        result: Tensor = aten.mean.dim(x, dim, keepdim, dtype=dtype)
        return result
    apply: Any = _GlobalMean.apply
    means: Tensor = apply(x)
    return means if keepdim else means.flatten(1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return one product of two matrices; for a transposed x, PyTorch would copy the weight for each of a batch."""
    result: Tensor = aten.linear.default(_rows(x), weight, bias)
    return result.reshape([*x.shape[:-1], weight.shape[0]]) if x.dim() > 2 else result


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return a matrix product, as one product of two matrices if y is a matrix."""
    if x.dim() < 3 or y.dim() != 2:
        product: Tensor = aten.matmul.default(x, y)
    else:
        product = aten.matmul.default(_rows(x), y).reshape([*x.shape[:-1], y.shape[1]])
    return product


def _rows(x: Tensor) -> Tensor:
    """Flatten all dimensions but the last."""
    return x.reshape([-1, x.shape[-1]]) if x.dim() > 2 else x


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(s Q Kᵀ) V (Vaswani et al. 2017, equation 1), without PyTorch's handling of fully masked rows."""
    if attn_mask is not None or is_causal or enable_gqa or dropout_p:
        masked: Tensor = aten.scaled_dot_product_attention.default(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return masked
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return torch.softmax((query * factor) @ key.transpose(-2, -1), -1) @ value


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Return batch norm in evaluation mode by the only form that does not return statistics too."""
    if training or running_mean is None or running_var is None:
        normalized: Tensor = aten.batch_norm.default(
            x, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled
        )
        return normalized
    results = aten._native_batch_norm_legit_no_training.default(
        x, weight, bias, running_mean, running_var, momentum, eps
    )
    scaled: Tensor = results[0]
    return scaled


def rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: object = None
) -> Tensor:
    """Return RReLU in evaluation mode: a LeakyReLU whose slope is the middle of the range."""
    if training:
        raise NotImplementedError("rrelu draws random slopes; pass training=False")
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Return a group norm with one group per channel (Wu & He 2018, figure 2); PyTorch moves the batch to channels."""
    if use_input_stats:
        return torch.nn.functional.group_norm(x, x.shape[1], weight, bias, eps)
    return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)


def index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Return elements indexed by numbers. With a mask, the number of elements would depend on the mask's values."""
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        raise NotImplementedError(
            "indexing by a mask gives as many elements as the mask holds; index by numbers, or use torch.where"
        )
    picked: Tensor = aten.index.Tensor(x, indices)
    return picked


# PyTorch's own decompositions. Without them, autograd calls backward operators that have no decomposition.
_affine_grid_generator = registered_decomposition(aten.affine_grid_generator.default)
_grid_sampler_2d = registered_decomposition(aten.grid_sampler_2d.default)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return a sampling grid, by PyTorch's own decomposition."""
    grid: Tensor = _affine_grid_generator(theta, size, align_corners)
    return grid


def grid_sampler(x: Tensor, grid: Tensor, interpolation: int, padding: int, align_corners: bool) -> Tensor:
    """Return images sampled at a grid, by PyTorch's own decomposition."""
    if x.dim() != 4:
        raise NotImplementedError("grid_sample of volumes has a gradient that ONNX's operators cannot express")
    sampled: Tensor = _grid_sampler_2d(x, grid, interpolation, padding, align_corners)
    return sampled


FORWARD_LOWERINGS: dict[Any, Callable[..., Tensor]] = {
    # After the target layer, memory may have another order than in the module.
    aten.view.default: aten.reshape.default,
    aten.linear.default: linear,
    aten.mean.dim: mean,
    aten.matmul.default: matmul,
    aten.adaptive_avg_pool1d.default: adaptive_avg_pool1d,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten.batch_norm.default: batch_norm,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    aten.rrelu.default: rrelu,
    aten.instance_norm.default: instance_norm,
    aten.index.Tensor: index,
    aten.affine_grid_generator.default: affine_grid_generator,
    aten.grid_sampler.default: grid_sampler,
    aten.grid_sampler_2d.default: grid_sampler,
}
