"""Tests of forward operators that are lowered to simpler ones: values and gradients in float64, to 1e-12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy_export.lowering.forward_operators import FORWARD_LOWERINGS

aten: Any = torch.ops.aten


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def case(operator: Any, inputs: list[Tensor], *more: Any, name: str = "", **named: Any) -> Any:
    """Return a test case: operator, tensors that gradients are taken of, further arguments."""
    return pytest.param(operator, inputs, more, named, id=f"{operator} {name}".strip())


STATISTICS = (draw(8, seed=7), draw(8, seed=8).abs() + 0.5)
# 8 channels are kept in blocks, 3 are not.
CASES = [
    case(aten.view.default, [draw(2, 8, 4, 4).transpose(0, 1).contiguous()], [8, 32]),
    *(
        case(aten.linear.default, [draw(*x, 5), draw(7, 5, seed=1), draw(7, seed=2)], name=f"{x}")
        for x in ((4,), (2, 3))
    ),
    case(aten.linear.default, [draw(2, 5, 3).transpose(1, 2), draw(7, 5, seed=1)], name="of a transposed x"),
    *(case(aten.matmul.default, [draw(*x, 5), draw(5, 6, seed=1)], name=f"{x}") for x in ((4,), (2, 3), (2, 3, 4))),
    case(aten.matmul.default, [draw(2, 3, 5), draw(2, 5, 6, seed=1)], name="of two batches"),
    *(
        case(aten.mean.dim, [draw(2, channels, *size)], dim, keep, name=f"{channels} channels, {size}, {dim}, {keep}")
        for channels in (3, 8)
        for size in ((4, 5), (1, 1), (1, 6))
        for dim, keep in (([2, 3], True), ([-1, -2], False), ([1], True), ([0, 2, 3], False))
    ),
    *(
        case(aten.adaptive_avg_pool2d.default, [draw(2, channels, 6, 9)], size, name=f"{channels} channels, {size}")
        for channels in (3, 8)
        for size in ([1, 1], [2, 3])
    ),
    *(case(aten.adaptive_avg_pool1d.default, [draw(2, 6, 8).transpose(1, 2)], [n], name=f"{n}") for n in (1, 4)),
    *(case(aten.adaptive_avg_pool3d.default, [draw(2, 3, 4, 6, 5)], 3 * [n], name=f"{n}") for n in (1, 2)),
    *(
        case(
            aten.batch_norm.default,
            [draw(2, 8, 3, 4), *([draw(8, seed=1), draw(8, seed=2)] if affine else [])],
            *([] if affine else [None, None]),
            *STATISTICS,
            False,
            0.1,
            1e-5,
            False,
            name=f"affine {affine}",
        )
        for affine in (True, False)
    ),
    *(
        case(
            aten.scaled_dot_product_attention.default,
            [draw(2, 3, 5, 4), draw(2, 3, 6, 4, seed=1), draw(2, 3, 6, 4, seed=2)],
            name=str(named),
            **named,
        )
        for named in ({}, {"scale": 0.3})
    ),
    case(aten.rrelu.default, [draw(2, 8, 3, 4)], 0.1, 0.4, False),
    case(
        aten.instance_norm.default,
        [draw(2, 8, 3, 4), draw(8, seed=1), draw(8, seed=2)],
        None,
        None,
        True,
        0.1,
        1e-5,
        False,
        name="of the image",
    ),
    case(
        aten.instance_norm.default,
        [draw(2, 8, 3, 4), draw(8, seed=1), draw(8, seed=2)],
        *STATISTICS,
        False,
        0.1,
        1e-5,
        False,
        name="of training",
    ),
    case(aten.index.Tensor, [draw(5, 8, 3)], [torch.tensor([4, 0, 0, 2])]),
    case(aten.index.Tensor, [draw(5, 8, 3)], [None, torch.tensor([7, 7, 1])], name="behind the first axis"),
    *(
        case(aten.affine_grid_generator.default, [draw(2, 2, 3)], [2, 8, 4, 5], corners, name=f"corners {corners}")
        for corners in (True, False)
    ),
    *(
        case(operator, [draw(2, 8, 5, 6), 0.4 * draw(2, 3, 4, 2, seed=1)], kind, pad, True, name=f"{kind} {pad}")
        for operator in (aten.grid_sampler.default, aten.grid_sampler_2d.default)
        for kind, pad in ((0, 0), (0, 1), (1, 0))
    ),
]


def test_every_lowering_has_a_case() -> None:
    assert {each.values[0] for each in CASES} == FORWARD_LOWERINGS.keys()


def value_and_gradients(operator: Callable[..., Tensor], inputs: list[Tensor], more: Any, named: Any) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    value = operator(*leaves, *more, **named)
    # The gradient of a plain sum would be the same everywhere.
    gradients = torch.autograd.grad((value * draw(*value.shape, seed=9)).sum(), leaves, allow_unused=True)
    return [value, *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True))]


@pytest.mark.parametrize(("operator", "inputs", "more", "named"), CASES)
def test_values_and_gradients_equal_pytorchs(operator: Any, inputs: list[Tensor], more: Any, named: Any) -> None:
    ours = value_and_gradients(FORWARD_LOWERINGS[operator], inputs, more, named)
    theirs = value_and_gradients(operator, inputs, more, named)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert ours[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("operator", "arguments", "words"),
    [
        (aten.rrelu.default, [draw(3), 0.1, 0.3, True], "random slopes"),
        (aten.index.Tensor, [draw(3), [draw(3) > 0]], "indexing by a mask"),
        (aten.grid_sampler.default, [draw(1, 1, 2, 2, 2), draw(1, 2, 2, 2, 3), 0, 0, True], "volumes"),
    ],
)
def test_cases_without_a_graph_are_refused(operator: Any, arguments: list[Any], words: str) -> None:
    with pytest.raises(NotImplementedError, match=words):
        FORWARD_LOWERINGS[operator](*arguments)
