"""Forward operators that are run as simpler ones, because of what autograd would make of them.

PyTorch takes these apart inside C++ before a trace can see them, into memory formats and masks that ONNX has no form
for. So the joint graph's forward pass takes them apart itself, before autograd does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy_export._shared.torch_internals import registered_decomposition
from seewhy_export.lowering.blocked_layout import blocked
from seewhy_export.lowering.onnx_masks import spread_over

aten: Any = torch.ops.aten


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """A mean where one place is left: PyTorch's own gives that another memory format, by `as_strided_`."""
    if list(output_size) in ([1], [1, 1]):
        return mean(x, (-2, -1), keepdim=True)
    pooled: Tensor = aten._adaptive_avg_pool2d.default(x, list(output_size))
    return pooled


class _GlobalMean(torch.autograd.Function):
    """The mean of each map of (N, C, h, w), kept as (N, C, 1, 1); its gradient is spread over the map again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        means: Tensor = aten.mean.dim(x, (2, 3), True)
        return means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.size
        spread: Tensor = spread_over(blocked(gradient, 1 / (height * width)), height, width)
        return spread


def mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """The mean; that over each map of (N, C, h, w) has a gradient that stays in onnxruntime's blocked layout."""
    maps = x.dim() == 4 and dim is not None and sorted(d % 4 for d in dim) == [2, 3] and dtype in (None, x.dtype)
    if not maps or not x.requires_grad or not all(isinstance(size, int) and size > 1 for size in x.shape[2:]):
        result: Tensor = aten.mean.dim(x, dim, keepdim, dtype=dtype)
        return result
    apply: Any = _GlobalMean.apply
    means: Tensor = apply(x)
    return means if keepdim else means.flatten(1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One product of two matrices. Of a transposed x, PyTorch would make a batch, with a copy of the weight each."""
    result: Tensor = aten.linear.default(_rows(x), weight, bias)
    return result.reshape([*x.shape[:-1], weight.shape[0]]) if x.dim() > 2 else result


def matmul(x: Tensor, y: Tensor) -> Tensor:
    if x.dim() < 3 or y.dim() != 2:
        product: Tensor = aten.matmul.default(x, y)
    else:
        product = aten.matmul.default(_rows(x), y).reshape([*x.shape[:-1], y.shape[1]])
    return product


def _rows(x: Tensor) -> Tensor:
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
    """softmax(s Q Kᵀ) V (Vaswani et al. 2017, equation 1), without PyTorch's care for rows that a mask leaves empty."""
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
    """In evaluation mode, the one form of batch norm that has no statistics among its results."""
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
    """In evaluation mode, a LeakyReLU with the slope in the middle."""
    if training:
        raise NotImplementedError("it draws its slopes at random; give it training=False")
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
    """A group norm with a group for each channel (Wu & He 2018, figure 2); PyTorch takes the batch for channels."""
    if use_input_stats:
        return torch.nn.functional.group_norm(x, x.shape[1], weight, bias, eps)
    return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)


def index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Indexing by numbers; a mask leaves a number of elements that depends on its values."""
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        raise NotImplementedError(
            "indexing by a mask gives as many elements as the mask holds; index by numbers, or use torch.where"
        )
    picked: Tensor = aten.index.Tensor(x, indices)
    return picked


# PyTorch's own decompositions. Without them autograd calls backward operators that have none.
_affine_grid_generator = registered_decomposition(aten.affine_grid_generator.default)
_grid_sampler_2d = registered_decomposition(aten.grid_sampler_2d.default)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    grid: Tensor = _affine_grid_generator(theta, size, align_corners)
    return grid


def grid_sampler(x: Tensor, grid: Tensor, interpolation: int, padding: int, align_corners: bool) -> Tensor:
    if x.dim() != 4:
        raise NotImplementedError("grid_sample of volumes has no gradient among ONNX's operators")
    sampled: Tensor = _grid_sampler_2d(x, grid, interpolation, padding, align_corners)
    return sampled


FORWARD_LOWERINGS: dict[Any, Callable[..., Tensor]] = {
    # Behind the target layer, memory may lie in another order than it did in the module.
    aten.view.default: aten.reshape.default,
    aten.linear.default: linear,
    aten.mean.dim: mean,
    aten.matmul.default: matmul,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.batch_norm.default: batch_norm,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    aten.rrelu.default: rrelu,
    aten.instance_norm.default: instance_norm,
    aten.index.Tensor: index,
    aten.affine_grid_generator.default: affine_grid_generator,
    aten.grid_sampler.default: grid_sampler,
    aten.grid_sampler_2d.default: grid_sampler,
}
