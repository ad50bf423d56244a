"""ONNX's layers in PyTorch's terms: convolutions, pools, norms, linear maps, attention, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy_export.sources.onnx_import.values import At, Operator, Unsupported, Value, axes_of, static, tensor

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _for_rank(table: dict[int, Any], x: Tensor) -> Any:
    rank = x.dim() - 2
    if rank not in table:
        raise Unsupported(f"{rank} spatial dimensions")
    return table[rank]


Sizes = Sequence[int]


def _padding(at: At, x: Tensor, kernel: Sizes, stride: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """(before, after) for each spatial dimension."""
    rank, mode = len(kernel), at.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b""):
        pads = list(at.get("pads") or [0] * 2 * rank)
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
    """As F.pad takes it: the last dimension first."""
    return [size for pair in reversed(padding) for size in pair]


def _conv(at: At, x: Tensor, weight: Value, bias: Value | None = None) -> Tensor:
    weight = tensor(weight, at)
    kernel, rank = list(weight.shape[2:]), weight.dim() - 2
    stride, dilation = at.get("strides") or [1] * rank, at.get("dilations") or [1] * rank
    padding = _padding(at, x, kernel, stride, dilation)
    if any(before != after for before, after in padding):
        x, padding = F.pad(x, _flat(padding)), [(0, 0)] * rank
    groups, both = at.get("group", 1), [before for before, _ in padding]
    shift = None if bias is None else tensor(bias, at)
    return _for_rank(_CONV, x)(x, weight, shift, stride, both, dilation, groups)  # type: ignore[no-any-return]


def _conv_transpose(at: At, x: Tensor, weight: Value, bias: Value | None = None) -> Tensor:
    weight = tensor(weight, at)
    rank = weight.dim() - 2
    if at.get("output_shape") or at.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        raise Unsupported("padding by output shape")
    stride, dilation = at.get("strides") or [1] * rank, at.get("dilations") or [1] * rank
    padding = _padding(at, x, list(weight.shape[2:]), stride, dilation)
    both = [min(pair) for pair in padding]
    y = _for_rank(_CONV_TRANSPOSE, x)(
        x,
        weight,
        None if bias is None else tensor(bias, at),
        stride,
        both,
        at.get("output_padding") or [0] * rank,
        at.get("group", 1),
        dilation,
    )
    return F.pad(y, _flat([(p - before, p - after) for p, (before, after) in zip(both, padding, strict=True)]))


def _pool_sizes(at: At, x: Tensor) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    kernel = list(at.get("kernel_shape") or ())
    if len(kernel) != x.dim() - 2:
        raise Unsupported(f"a kernel of {len(kernel)} dimensions for {x.dim() - 2}")
    stride, dilation = at.get("strides") or [1] * len(kernel), at.get("dilations") or [1] * len(kernel)
    return kernel, list(stride), list(dilation), _padding(at, x, kernel, stride, dilation)


def _fits_pytorch(kernel: Sequence[int], padding: Sequence[tuple[int, int]]) -> bool:
    return all(before == after and before <= k // 2 for k, (before, after) in zip(kernel, padding, strict=True))


def _max_pool(at: At, x: Tensor) -> Tensor:
    kernel, stride, dilation, padding = _pool_sizes(at, x)
    if not _fits_pytorch(kernel, padding):
        x, padding = F.pad(x, _flat(padding), value=-math.inf), [(0, 0)] * len(kernel)
    both = [before for before, _ in padding]
    return _for_rank(_MAX_POOL, x)(x, kernel, stride, both, dilation, bool(at.get("ceil_mode", 0)))  # type: ignore[no-any-return]


def _average_pool(at: At, x: Tensor) -> Tensor:
    kernel, stride, dilation, padding = _pool_sizes(at, x)
    if set(dilation) != {1}:
        raise Unsupported("dilation")
    pool, ceil, counted = _for_rank(_AVG_POOL, x), bool(at.get("ceil_mode", 0)), bool(at.get("count_include_pad", 0))
    if _fits_pytorch(kernel, padding):
        return pool(x, kernel, stride, [before for before, _ in padding], ceil, counted)  # type: ignore[no-any-return]
    if ceil:
        raise Unsupported("ceil_mode with uneven padding")
    y = pool(F.pad(x, _flat(padding)), kernel, stride)
    if counted:
        return y  # type: ignore[no-any-return]
    # Each mean counted the padding; how much of a window lies inside is the same for all images and channels.
    inside = pool(F.pad(torch.ones(1, 1, *x.shape[2:], dtype=x.dtype), _flat(padding)), kernel, stride)
    return y / inside  # type: ignore[no-any-return]


def _global_max_pool(at: At, x: Tensor) -> Tensor:
    # As a pool: of several equal maxima, the first one has the gradient.
    return _for_rank(_MAX_POOL, x)(x, [int(size) for size in x.shape[2:]])  # type: ignore[no-any-return]


def _gemm(at: At, a: Value, b: Value, c: Value | None = None) -> Tensor:
    a, b = tensor(a, at), tensor(b, at)
    product = (a.mT if at.get("transA", 0) else a) @ (b.mT if at.get("transB", 0) else b)
    alpha, beta = at.get("alpha", 1.0), at.get("beta", 1.0)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (tensor(c, at) if beta == 1 else beta * tensor(c, at))


def _linear(at: At, x: Tensor, weight: Tensor, bias: Value | None = None) -> Tensor:
    """Not ONNX's: a Gemm or MatMul with constant weights, and the Add of a bias."""
    return F.linear(x, weight, None if bias is None else tensor(bias, at))


def _batch_norm(at: At, x: Tensor, scale: Value, shift: Value, mean: Value, variance: Value) -> Tensor:
    if at.get("training_mode", 0):
        raise Unsupported("training mode")
    average, spread, weight, bias = (tensor(value, at) for value in (mean, variance, scale, shift))
    return F.batch_norm(x, average, spread, weight, bias, training=False, eps=at.get("epsilon", 1e-5))


def _instance_norm(at: At, x: Tensor, scale: Value, shift: Value) -> Tensor:
    return F.instance_norm(x, weight=tensor(scale, at), bias=tensor(shift, at), eps=at.get("epsilon", 1e-5))


def _layer_norm(at: At, x: Tensor, scale: Value, shift: Value | None = None) -> Tensor:
    (axis,) = axes_of(x.dim(), [at.get("axis", -1)])
    shape = [int(size) for size in x.shape[axis:]]
    weight = tensor(scale, at).expand(shape)
    bias = None if shift is None else tensor(shift, at).expand(shape)
    return F.layer_norm(x, shape, weight, bias, at.get("epsilon", 1e-5))


def _rms_norm(at: At, x: Tensor, scale: Value) -> Tensor:
    (axis,) = axes_of(x.dim(), [at.get("axis", -1)])
    shape = [int(size) for size in x.shape[axis:]]
    return F.rms_norm(x, shape, tensor(scale, at).expand(shape), at.get("epsilon", 1e-5))


def _group_norm(at: At, x: Tensor, scale: Value, shift: Value) -> Tensor:
    groups = at.get("num_groups")
    weight, bias = tensor(scale, at), tensor(shift, at)
    if at.opset < 21:  # one value for each group
        weight, bias = (value.repeat_interleave(int(x.shape[1]) // groups) for value in (weight, bias))
    return F.group_norm(x, groups, weight, bias, at.get("epsilon", 1e-5))


def _lrn(at: At, x: Tensor) -> Tensor:
    size = at.get("size")
    if size % 2 == 0:
        raise Unsupported(f"an even size, {size}")
    return F.local_response_norm(x, size, at.get("alpha", 1e-4), at.get("beta", 0.75), at.get("bias", 1.0))


def _lp_norm(at: At, x: Tensor) -> Tensor:
    axis, p = at.get("axis", -1), at.get("p", 2)
    return x / (x.abs().sum(axis, keepdim=True) if p == 1 else (x * x).sum(axis, keepdim=True).sqrt())


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def apply(at: At, x: Tensor, axes: Value | None = None) -> Tensor:
        chosen = at.get("axes") if axes is None else static(axes, "axes")
        if not chosen and at.get("noop_with_empty_axes", 0):
            return x
        listed = axes_of(x.dim(), chosen) if chosen else list(range(x.dim()))
        return function(x, listed, bool(at.get("keepdims", 1)))

    return apply


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _attention(at: At, q: Tensor, k: Tensor, v: Tensor, mask: Value | None = None, *rest: Value | None) -> Tensor:
    if any(value is not None for value in rest) or q.dim() != 4 or at.get("softcap", 0.0) or at.get("is_causal", 0):
        raise Unsupported("a cache, a cap, a causal mask or queries that are not (N, heads, T, D)")
    if k.shape[1] != q.shape[1]:
        raise Unsupported("fewer heads for keys than for queries")
    bias = None if mask is None else tensor(mask, at)
    return F.scaled_dot_product_attention(q, k, v, bias, scale=at.get("scale"))


LAYERS: dict[str, Operator] = {
    "ArgMax": lambda at, x: x.argmax(at.get("axis", 0), bool(at.get("keepdims", 1))),
    "Attention": _attention,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": lambda at, *values: torch.einsum(at.get("equation").decode(), *[tensor(v, at) for v in values]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda at, x: x.mean(list(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": _global_max_pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "Linear": _linear,
    "LpNormalization": _lp_norm,
    "MatMul": lambda at, a, b: torch.matmul(tensor(a, at), tensor(b, at)),
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
