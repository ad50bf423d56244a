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

aten: Any = torch.ops.aten


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """A mean where one place is left: PyTorch's own gives that another memory format, by `as_strided_`."""
    if list(output_size) in ([1], [1, 1]):
        return x.mean((-2, -1), keepdim=True)
    pooled: Tensor = aten._adaptive_avg_pool2d.default(x, list(output_size))
    return pooled


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


FORWARD_LOWERINGS: dict[Any, Callable[..., Tensor]] = {
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.batch_norm.default: batch_norm,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
}
