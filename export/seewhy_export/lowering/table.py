"""Table of lowerings: replacements of operators that ONNX cannot express.

The table maps an ATen operator to a function of the same arguments. Most are backward operators. The trace of the joint
graph uses it as its decomposition table, so the graph holds only forward operators. Each function is exact algebra: in
float64 it agrees with PyTorch's kernel up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seewhy_export._shared.torch_internals import core_aten_decompositions
from seewhy_export.lowering import convolution, elementwise, indexing, norms, padding_and_unfold, pooling

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
    aten.index_put.default: indexing.index_put,
    aten._unsafe_index_put.default: indexing.index_put,
    aten.threshold.default: elementwise.threshold,
    aten.sgn.default: elementwise.sgn,
    aten.var.correction: elementwise.var,
}

IN_PLACE_LEFTOVERS: dict[Any, Callable[..., Any]] = {
    aten.copy.default: padding_and_unfold.copy,
    aten.new_empty_strided.default: padding_and_unfold.new_empty_strided,
}
"""Lowerings of the operators by which functionalization replaces writes into views."""


# Forward operators without an ONNX form that PyTorch can decompose; `rsub` is frequent in backward passes. Otherwise
# torch.onnx would trace the whole graph again to decompose them, which takes longer than all other steps.
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
    """Return our lowerings, and PyTorch's own decompositions of all other backward operators.

    PyTorch's decompositions of operators that ONNX has, such as batch norm and GELU, are left out.
    """

    def is_needed(target: Any) -> bool:
        name = target.name().partition(".")[0]
        return "backward" in name or name in _WITHOUT_ONNX_FORM

    pytorchs = {target: f for target, f in core_aten_decompositions().items() if is_needed(target)}
    return {**pytorchs, **LOWERINGS}
