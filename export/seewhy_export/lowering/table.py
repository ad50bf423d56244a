"""Operators that ONNX cannot express, written in operators that it can.

One table: ATen operator -> function of the same arguments. Most are backward operators. The trace of the joint graph
takes it as its decomposition table, so the graph holds forward operators alone. Each function is exact algebra: in
float64 it agrees with PyTorch's kernel to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seewhy_export._shared.torch_internals import core_aten_decompositions
from seewhy_export.lowering import convolution, elementwise, norms, padding_and_unfold, pooling

aten: Any = torch.ops.aten

LOWERINGS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution.convolution_backward,
    aten.native_batch_norm_backward.default: norms.batch_norm_backward,
    aten.max_pool2d_with_indices_backward.default: pooling.max_pool2d_backward,
    aten.max_pool3d_with_indices_backward.default: pooling.max_pool3d_backward,
    aten.adaptive_max_pool2d.default: pooling.adaptive_max_pool2d,
    aten.adaptive_max_pool2d_backward.default: pooling.adaptive_max_pool2d_backward,
    aten.avg_pool2d.default: pooling.avg_pool2d,
    aten.avg_pool3d.default: pooling.avg_pool3d,
    aten.avg_pool2d_backward.default: pooling.avg_pool2d_backward,
    aten.avg_pool3d_backward.default: pooling.avg_pool3d_backward,
    aten._adaptive_avg_pool2d.default: pooling.adaptive_avg_pool,
    aten._adaptive_avg_pool3d.default: pooling.adaptive_avg_pool,
    aten._adaptive_avg_pool2d_backward.default: pooling.adaptive_avg_pool_backward,
    aten._adaptive_avg_pool3d_backward.default: pooling.adaptive_avg_pool_backward,
    aten.replication_pad1d_backward.default: padding_and_unfold.replication_pad_backward,
    aten.replication_pad2d_backward.default: padding_and_unfold.replication_pad_backward,
    aten.replication_pad3d_backward.default: padding_and_unfold.replication_pad_backward,
    aten.unfold_backward.default: padding_and_unfold.unfold_backward,
    aten.threshold.default: elementwise.threshold,
    aten.sgn.default: elementwise.sgn,
    aten.var.correction: elementwise.var,
}

IN_PLACE_LEFTOVERS: dict[Any, Callable[..., Any]] = {
    aten.copy.default: padding_and_unfold.copy,
    aten.new_empty_strided.default: padding_and_unfold.new_empty_strided,
}
"""What becomes of writing into views, where it is taken out of a graph."""


# Forward operators that have no ONNX form, and a decomposition by PyTorch; backward passes are full of `rsub`. Without
# this, torch.onnx would trace the whole graph again to take them apart, which takes longer than all the rest.
_WITHOUT_ONNX_FORM = {
    f"aten::{name}"
    for name in (
        "_safe_softmax",
        "_unsafe_masked_index",
        "_weight_norm_interface",
        "aminmax",
        "channel_shuffle",
        "hardshrink",
        "index_add",
        "index_copy",
        "log_sigmoid_forward",
        "max_unpool2d",
        "nan_to_num",
        "norm",
        "rot90",
        "rsub",
        "softshrink",
        "std",
        "std_mean",
        "take",
        "vdot",
        "xlogy",
        "zero",
    )
}


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Our lowerings, and PyTorch's own for every other backward operator that it has one for.

    PyTorch's decompositions of what ONNX has as operators stay out: batch norm, GELU and the like.
    """

    def is_needed(target: Any) -> bool:
        name = target.name().partition(".")[0]
        return "backward" in name or name in _WITHOUT_ONNX_FORM

    theirs = {target: f for target, f in core_aten_decompositions().items() if is_needed(target)}
    return {**theirs, **LOWERINGS}
