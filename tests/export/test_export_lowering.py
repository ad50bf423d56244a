"""Each lowering against PyTorch's own kernel, in float64 over random shapes.

The algebra is exact, so all that may differ is the order of summation: 1e-12 of the largest value.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy_export.lowering import convolution, norms, pooling

aten = torch.ops.aten
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
small = st.integers(1, 4)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * max(1.0, float(theirs.abs().max())))


@many
@given(st.data())
def test_convolution_backward(data: st.DataObject) -> None:
    draw = data.draw
    groups = draw(st.integers(1, 3))
    inside, outside = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = ([draw(small), draw(small)] for _ in range(3))
    padding = [draw(st.integers(0, 4)), draw(st.integers(0, 4))]
    transposed = draw(st.booleans())
    output_padding = [draw(st.integers(0, 3)) if transposed else 0 for _ in range(2)]
    assume(all(o < max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)))
    size = [draw(st.integers(1, 12)), draw(st.integers(1, 12))]
    x = random(2, inside, *size)
    weight = random(*((inside, outside // groups) if transposed else (outside, inside // groups)), *kernel, seed=1)
    settings_ = (stride, padding, dilation, transposed, output_padding, groups)
    try:
        out = aten.convolution(x, weight, None, *settings_)
    except RuntimeError:
        assume(False)  # the kernel is larger than the padded input
    assume(out.numel() > 0)
    gradient = random(*out.shape, seed=2)
    mask = [True, False, False]
    theirs = aten.convolution_backward(gradient, x, weight, None, *settings_, mask)[0]
    assert_same(convolution.convolution_backward(gradient, x, weight, None, *settings_, mask)[0], theirs)


@many
@given(st.data())
def test_avg_pool2d_backward(data: st.DataObject) -> None:
    draw = data.draw
    kernel = [draw(st.integers(1, 5)), draw(st.integers(1, 5))]
    stride = draw(st.one_of(st.just([]), st.lists(small, min_size=2, max_size=2)))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    size = [draw(st.integers(1, 12)), draw(st.integers(1, 12))]
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    rest = (draw(st.booleans()), draw(st.booleans()), draw(st.one_of(st.none(), st.integers(1, 9))))
    x = random(2, 3, *size)
    gradient = random(*aten.avg_pool2d(x, kernel, stride, padding, *rest).shape, seed=1)
    theirs = aten.avg_pool2d_backward(gradient, x, kernel, stride, padding, *rest)
    assert_same(pooling.avg_pool2d_backward(gradient, x, kernel, stride, padding, *rest), theirs)


@many
@given(st.data())
def test_max_pool2d_backward(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride, dilation = ([draw(small), draw(small)] for _ in range(3))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    size = [draw(st.integers(1, 12)), draw(st.integers(1, 12))]
    assume(all(s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    # Few values, so that ties are the rule.
    x = random(2, 3, *size).round()
    window = (kernel, stride, padding, dilation, draw(st.booleans()))
    out, indices = aten.max_pool2d_with_indices(x, *window)
    # A dilated window can miss the map altogether; PyTorch's backward then writes outside of its memory.
    assume(bool(out.isfinite().all()))
    gradient = random(*out.shape, seed=1)
    theirs = aten.max_pool2d_with_indices_backward(gradient, x, *window, indices)
    assert_same(pooling.max_pool2d_backward(gradient, x, *window, indices), theirs)


@many
@given(st.tuples(st.integers(1, 17), st.integers(1, 17)), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_adaptive_avg_pool2d(size: tuple[int, int], pooled: tuple[int, int]) -> None:
    x, gradient = random(2, 3, *size), random(2, 3, *pooled, seed=1)
    assert_same(pooling.adaptive_avg_pool(x, pooled), aten._adaptive_avg_pool2d(x, list(pooled)))
    assert_same(pooling.adaptive_avg_pool_backward(gradient, x), aten._adaptive_avg_pool2d_backward(gradient, x))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_backward(affine: bool) -> None:
    x, gradient = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    weight = random(3, seed=2) if affine else None
    mean, variance = random(3, seed=3), random(3, seed=4).abs()
    arguments = (gradient, x, weight, mean, variance, None, None, False, 1e-3, [True, False, False])
    assert_same(norms.batch_norm_backward(*arguments)[0], aten.native_batch_norm_backward(*arguments)[0])


def test_training_batch_norm_is_refused() -> None:
    x = random(1, 2, 3, 3)
    with pytest.raises(NotImplementedError, match="statistics"):
        norms.batch_norm_backward(x, x, None, x, x, None, None, True, 1e-5, [True, False, False])
