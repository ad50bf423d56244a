"""Custom operators for masks and for spreading values over a map, with a fast ONNX form.

A comparison and a cast would leave onnxruntime's blocked layout, with a copy each way. A steep HardSigmoid stays in
that layout. In PyTorch both masks are exact comparisons. In ONNX they are exact for every normal float32; a denormal
(below 1.2e-38) gives a fraction instead of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20
from torch import Tensor

op: Any = opset20
_LARGEST_FLOAT32 = 3.4028234663852886e38


@torch.library.custom_op("seewhy::is_positive", mutates_args=())
def is_positive(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0, in the dtype of x."""
    return (x > 0).to(x.dtype)


@is_positive.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("seewhy::is_below", mutates_args=())
def is_below(x: Tensor, bound: float) -> Tensor:
    """Return 1 where x < bound, else 0, in the dtype of x. It requires x <= bound and bound > 0."""
    return (x < bound).to(x.dtype)


@is_below.register_fake
def _(x: Tensor, bound: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("seewhy::spread_over", mutates_args=())
def spread_over(x: Tensor, height: int, width: int) -> Tensor:
    """Spread each value of (N, C, 1, 1) over a map (N, C, height, width)."""
    return x.expand(-1, -1, height, width).clone()


@spread_over.register_fake
def _(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty([*x.shape[:2], height, width])


def _translate_spread_over(x: Any, height: int, width: int) -> Any:
    scales = op.Constant(value_floats=[1.0, 1.0, float(height), float(width)])
    return op.Resize(x, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _translate_is_positive(x: Any) -> Any:
    # OpenVINO replaces a beta of 0 by the default of 0.5. This beta is lost by rounding for every normal x times alpha.
    return op.HardSigmoid(x, alpha=_LARGEST_FLOAT32, beta=-1e-30)


def _translate_is_below(x: Any, bound: float) -> Any:
    # Powers of two scale exactly. This one makes the step from `bound` to the next smaller float32 at least 1.
    scale = 2.0 ** (24 - math.floor(math.log2(bound)))
    return op.HardSigmoid(x, alpha=-scale, beta=bound * scale)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.seewhy.is_positive.default: _translate_is_positive,
    torch.ops.seewhy.is_below.default: _translate_is_below,
    torch.ops.seewhy.spread_over.default: _translate_spread_over,
}
