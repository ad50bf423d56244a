"""The gradient of batch norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
        raise NotImplementedError("a batch norm without stored statistics takes those of the batch")
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    return gradient * scale.reshape([1, -1] + [1] * (x.dim() - 2)), None, None
