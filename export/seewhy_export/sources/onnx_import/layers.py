"""ONNX layers as PyTorch functions: convolutions, pools, norms, linear layers, attention, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.values import (
    NodeInfo,
    Operator,
    Unsupported,
    Value,
    as_tensor,
    normalized_axes,
    static_sizes,
)

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _for_rank(table: dict[int, Any], x: Tensor) -> Any:
    """Return the function for the number of spatial dimensions of x."""
    rank = x.dim() - 2
    if rank not in table:
        raise Unsupported(f"{rank} spatial dimensions")
    return table[rank]


Sizes = Sequence[int]


def _padding(node: NodeInfo, x: Tensor, kernel: Sizes, stride: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """Return the padding (before, after) of each spatial dimension."""
    rank, mode = len(kernel), node.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b""):
        pads = list(node.get("pads") or [0] * 2 * rank)
        return list(zip(pads[:rank], pads[rank:], strict=True))
    if mode == b"VALID":
        return [(0, 0)] * rank
    padding = []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max(0, (-(-int(size) // s) - 1) * s + (k - 1) * d + 1 - int(size))
        less, more = total // 2, total - total // 2
        padding.append((less, more) if mode == b"SAME_UPPER" else (more, less))
    return padding


def _flat(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return the padding in the order of F.pad, which starts with the last dimension."""
    return [size for pair in reversed(padding) for size in pair]


def _conv(node: NodeInfo, x: Tensor, weight: Value, bias: Value | None = None) -> Tensor:
    weight = as_tensor(weight, node)
    kernel, rank = list(weight.shape[2:]), weight.dim() - 2
    stride, dilation = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    padding = _padding(node, x, kernel, stride, dilation)
    if any(before != after for before, after in padding):
        x, padding = F.pad(x, _flat(padding)), [(0, 0)] * rank
    groups, both = node.get("group", 1), [before for before, _ in padding]
    shift = None if bias is None else as_tensor(bias, node)
    return _for_rank(_CONV, x)(x, weight, shift, stride, both, dilation, groups)  # type: ignore[no-any-return]


def _conv_transpose(node: NodeInfo, x: Tensor, weight: Value, bias: Value | None = None) -> Tensor:
    weight = as_tensor(weight, node)
    rank = weight.dim() - 2
    if node.get("output_shape") or node.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        raise Unsupported("padding by output shape")
    stride, dilation = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    padding = _padding(node, x, list(weight.shape[2:]), stride, dilation)
    both = [min(pair) for pair in padding]
    y = _for_rank(_CONV_TRANSPOSE, x)(
        x,
        weight,
        None if bias is None else as_tensor(bias, node),
        stride,
        both,
        node.get("output_padding") or [0] * rank,
        node.get("group", 1),
        dilation,
    )
    return F.pad(y, _flat([(p - before, p - after) for p, (before, after) in zip(both, padding, strict=True)]))


def _pool_sizes(node: NodeInfo, x: Tensor) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Return kernel size, stride, dilation and padding of a pool."""
    kernel = list(node.get("kernel_shape") or ())
    if len(kernel) != x.dim() - 2:
        raise Unsupported(f"a kernel of {len(kernel)} dimensions for {x.dim() - 2} spatial dimensions")
    stride, dilation = node.get("strides") or [1] * len(kernel), node.get("dilations") or [1] * len(kernel)
    return kernel, list(stride), list(dilation), _padding(node, x, kernel, stride, dilation)


def _fits_pytorch(kernel: Sequence[int], padding: Sequence[tuple[int, int]]) -> bool:
    """Return True if PyTorch's pools accept the padding: symmetric, and at most half the kernel."""
    return all(before == after and before <= k // 2 for k, (before, after) in zip(kernel, padding, strict=True))


def _max_pool(node: NodeInfo, x: Tensor) -> Tensor:
    kernel, stride, dilation, padding = _pool_sizes(node, x)
    if not _fits_pytorch(kernel, padding):
        x, padding = F.pad(x, _flat(padding), value=-math.inf), [(0, 0)] * len(kernel)
    both = [before for before, _ in padding]
    return _for_rank(_MAX_POOL, x)(x, kernel, stride, both, dilation, bool(node.get("ceil_mode", 0)))  # type: ignore[no-any-return]


def _average_pool(node: NodeInfo, x: Tensor) -> Tensor:
    kernel, stride, dilation, padding = _pool_sizes(node, x)
    if set(dilation) != {1}:
        raise Unsupported("dilation")
    pool, ceil, counted = (
        _for_rank(_AVG_POOL, x),
        bool(node.get("ceil_mode", 0)),
        bool(node.get("count_include_pad", 0)),
    )
    if _fits_pytorch(kernel, padding):
        return pool(x, kernel, stride, [before for before, _ in padding], ceil, counted)  # type: ignore[no-any-return]
    if ceil:
        raise Unsupported("ceil_mode with uneven padding")
    y = pool(F.pad(x, _flat(padding)), kernel, stride)
    if counted:
        return y  # type: ignore[no-any-return]
    # The means above include the padding. The share of a window inside the image is the same for all images and
    # channels, so divide by it.
    inside = pool(F.pad(torch.ones(1, 1, *x.shape[2:], dtype=x.dtype), _flat(padding)), kernel, stride)
    return y / inside  # type: ignore[no-any-return]


def _global_max_pool(node: NodeInfo, x: Tensor) -> Tensor:
    # Use a pool rather than amax: of several equal maxima, only the first one then gets the gradient.
    return _for_rank(_MAX_POOL, x)(x, [int(size) for size in x.shape[2:]])  # type: ignore[no-any-return]


def _gemm(node: NodeInfo, a: Value, b: Value, c: Value | None = None) -> Tensor:
    a, b = as_tensor(a, node), as_tensor(b, node)
    product = (a.mT if node.get("transA", 0) else a) @ (b.mT if node.get("transB", 0) else b)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (as_tensor(c, node) if beta == 1 else beta * as_tensor(c, node))


def _linear(node: NodeInfo, x: Tensor, weight: Tensor, bias: Value | None = None) -> Tensor:
    """Apply a Linear, which stands for a Gemm or MatMul with constant weights and the Add of a bias. ONNX has none."""
    return F.linear(x, weight, None if bias is None else as_tensor(bias, node))


def _batch_norm(node: NodeInfo, x: Tensor, scale: Value, shift: Value, mean: Value, variance: Value) -> Tensor:
    if node.get("training_mode", 0):
        raise Unsupported("training mode")
    average, spread, weight, bias = (as_tensor(value, node) for value in (mean, variance, scale, shift))
    return F.batch_norm(x, average, spread, weight, bias, training=False, eps=node.get("epsilon", 1e-5))


def _instance_norm(node: NodeInfo, x: Tensor, scale: Value, shift: Value) -> Tensor:
    return F.instance_norm(x, weight=as_tensor(scale, node), bias=as_tensor(shift, node), eps=node.get("epsilon", 1e-5))


def _layer_norm(node: NodeInfo, x: Tensor, scale: Value, shift: Value | None = None) -> Tensor:
    (axis,) = normalized_axes(x.dim(), [node.get("axis", -1)])
    shape = [int(size) for size in x.shape[axis:]]
    weight = as_tensor(scale, node).expand(shape)
    bias = None if shift is None else as_tensor(shift, node).expand(shape)
    return F.layer_norm(x, shape, weight, bias, node.get("epsilon", 1e-5))


def _rms_norm(node: NodeInfo, x: Tensor, scale: Value) -> Tensor:
    (axis,) = normalized_axes(x.dim(), [node.get("axis", -1)])
    shape = [int(size) for size in x.shape[axis:]]
    return F.rms_norm(x, shape, as_tensor(scale, node).expand(shape), node.get("epsilon", 1e-5))


def _group_norm(node: NodeInfo, x: Tensor, scale: Value, shift: Value) -> Tensor:
    groups = node.get("num_groups")
    weight, bias = as_tensor(scale, node), as_tensor(shift, node)
    if node.opset < 21:  # one value per group
        weight, bias = (value.repeat_interleave(int(x.shape[1]) // groups) for value in (weight, bias))
    return F.group_norm(x, groups, weight, bias, node.get("epsilon", 1e-5))


def _lrn(node: NodeInfo, x: Tensor) -> Tensor:
    size = node.get("size")
    if size % 2 == 0:
        raise Unsupported(f"an even size, {size}")
    return F.local_response_norm(x, size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))


def _lp_norm(node: NodeInfo, x: Tensor) -> Tensor:
    axis, p = node.get("axis", -1), node.get("p", 2)
    return x / (x.abs().sum(axis, keepdim=True) if p == 1 else (x * x).sum(axis, keepdim=True).sqrt())


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """Return the operator of a reduction over axes."""

    def apply(node: NodeInfo, x: Tensor, axes: Value | None = None) -> Tensor:
        chosen = node.get("axes") if axes is None else static_sizes(axes, "axes")
        if not chosen and node.get("noop_with_empty_axes", 0):
            return x
        listed = normalized_axes(x.dim(), chosen) if chosen else list(range(x.dim()))
        return function(x, listed, bool(node.get("keepdims", 1)))

    return apply


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Multiply along several axes, which torch.prod cannot do."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _attention(
    node: NodeInfo, q: Tensor, k: Tensor, v: Tensor, mask: Value | None = None, *rest: Value | None
) -> Tensor:
    if any(value is not None for value in rest) or q.dim() != 4 or node.get("softcap", 0.0) or node.get("is_causal", 0):
        raise Unsupported("a cache, a cap, a causal mask or queries that are not (N, heads, T, D)")
    if k.shape[1] != q.shape[1]:
        raise Unsupported("fewer heads for keys than for queries")
    bias = None if mask is None else as_tensor(mask, node)
    return F.scaled_dot_product_attention(q, k, v, bias, scale=node.get("scale"))


LAYERS: dict[str, Operator] = {
    "ArgMax": lambda node, x: x.argmax(node.get("axis", 0), bool(node.get("keepdims", 1))),
    "Attention": _attention,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": lambda node, *values: torch.einsum(node.get("equation").decode(), *[as_tensor(v, node) for v in values]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x.mean(list(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": _global_max_pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "Linear": _linear,
    "LpNormalization": _lp_norm,
    "MatMul": lambda node, a, b: torch.matmul(as_tensor(a, node), as_tensor(b, node)),
    "MaxPool": _max_pool,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: (x * x).sum(axes, keep).sqrt()),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: (x * x).sum(axes, keep)),
}
