"""Back into onnxruntime's blocked layout.

On the CPU, onnxruntime keeps values between convolutions in blocks of channels. Some operators leave that layout, and
what is added to or multiplied with an unblocked value stays unblocked, through a whole residual stream. A convolution
takes any layout and gives blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten

BLOCK = 8
"""Channels. Blocks have 8 of them, or 16 where the processor has AVX-512; other numbers of channels are not blocked."""


def is_blocked(x: Tensor) -> bool:
    """Whether (N, C, h, w) is of a shape that onnxruntime may keep in blocks."""
    return x.dim() == 4 and isinstance(x.shape[1], int) and x.shape[1] > 0 and x.shape[1] % BLOCK == 0


def blocked(x: Tensor, scale: float = 1.0) -> Tensor:
    """(N, C, h, w) -> the same times `scale`: a depthwise convolution by one element, where that gives blocks."""
    if not is_blocked(x):
        return x if scale == 1.0 else x * scale
    channels = x.shape[1]
    weight = torch.full([channels, 1, 1, 1], scale, dtype=x.dtype, device=x.device)
    result: Tensor = aten.convolution.default(x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], channels)
    return result
