"""Gradient of batch norm."""

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
    """Compute the gradient of batch norm's input in evaluation mode, where batch norm is a scale for each channel.

    The arguments are those of `aten.native_batch_norm_backward`.

    Returns:
        The gradient of `x`, and None for weight and bias.

    Raises:
        NotImplementedError: If the norm uses the statistics of the batch.
    """
    if train:
        raise NotImplementedError("a batch norm without stored statistics uses the statistics of the batch")
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    return gradient * scale.reshape([1, -1] + [1] * (x.dim() - 2)), None, None
