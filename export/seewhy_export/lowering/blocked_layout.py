"""Return of values to onnxruntime's blocked layout.

On the CPU, onnxruntime keeps values between convolutions in blocks of channels. Some operators leave that layout.
Everything that is then added to or multiplied with an unblocked value stays unblocked too, through a whole residual
stream. A convolution accepts any layout and returns a blocked value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten

BLOCK = 8
"""Channels per block: 8, or 16 on processors with AVX-512. Channel counts that this does not divide are not blocked."""


def is_blocked(x: Tensor) -> bool:
    """Tell whether onnxruntime may keep a tensor in blocks.

    Args:
        x: Tensor; only shapes (N, C, h, w) with a suitable C are blocked.
    """
    return x.dim() == 4 and isinstance(x.shape[1], int) and x.shape[1] > 0 and x.shape[1] % BLOCK == 0


def to_blocked_layout(x: Tensor, scale: float = 1.0) -> Tensor:
    """Multiply by `scale` in a way that returns a blocked value: a depthwise 1x1 convolution.

    Args:
        x: Tensor of shape (N, C, h, w).
        scale: Factor.

    Returns:
        The product. Shapes that cannot be blocked are multiplied as usual.
    """
    if not is_blocked(x):
        return x if scale == 1.0 else x * scale
    channels = x.shape[1]
    weight = torch.full([channels, 1, 1, 1], scale, dtype=x.dtype, device=x.device)
    result: Tensor = aten.convolution.default(x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], channels)
    return result
