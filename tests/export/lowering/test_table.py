"""Tests of `seewhy_export.lowering.table`: each lowering equals its operator, and mutants of it do not.

All compute in float64. The algebra is exact, so only the order of summation may differ, by at most 1e-12 of the largest
value. A mutant is a lowering whose source has a changed sign, tap or bound. A test that no mutant fails tests nothing.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy_export.lowering import norms
from seewhy_export.lowering.table import IN_PLACE_LEFTOVERS, LOWERINGS

aten = torch.ops.aten
Draw = Callable[[st.SearchStrategy], Any]
Arguments = Callable[[Draw], tuple]
"""Function that draws an operator's arguments; a dict at the end holds keyword arguments."""
TABLE = {**LOWERINGS, aten.copy.default: IN_PLACE_LEFTOVERS[aten.copy.default]}

quiet = {"deadline": None, "suppress_health_check": list(HealthCheck)}
many = settings(max_examples=200, **quiet)
until_it_fails = settings(
    max_examples=400, phases=[Phase.generate], database=None, derandomize=True, report_multiple_bugs=False, **quiet
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert equality up to rounding, except for results that are None in ours."""
    if isinstance(ours, tuple):
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif ours is not None:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        largest = float(theirs.abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * max(1.0, largest))


def numbers(draw: Draw, count: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(count)]


def lead(draw: Draw) -> list[int]:
    """Draw leading sizes: batch and channels, or channels alone."""
    return draw(st.sampled_from([[2, 3], [1, 1], [3]]))


def computed(operator: Any, *arguments: Any, **options: Any) -> Any:
    """Return the operator's result, skipping cases that PyTorch refuses, such as windows larger than the map."""
    try:
        return operator(*arguments, **options)
    except RuntimeError:
        assume(False)


# Arguments of each lowering.


def convolution_backward(draw: Draw) -> tuple:
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.integers(1, 3))
    inside, outside = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = (numbers(draw, rank, 1, 4) for _ in range(3))
    padding = numbers(draw, rank, 0, 4)
    transposed = draw(st.booleans())
    size = numbers(draw, rank, 1, 12 if rank < 3 else 6)
    # Some cases have strategies of their own, which chance alone would rarely draw.
    case = draw(st.sampled_from(["any", "any", "stride 1", "1x1", "depthwise", "phases"]))
    stride = [1] * rank if case == "stride 1" else stride
    if case == "1x1":
        kernel, padding, transposed = [1] * rank, [0] * rank, False
        # Eight channels are returned to the blocked layout.
        groups, inside, outside = draw(st.sampled_from([(groups, inside, outside), (1, 8, 8), (2, 16, 8)]))
    if case in ("depthwise", "phases"):
        rank, transposed, dilation, inside = 2, False, [1, 1], 8
        groups, outside = (8, 8) if case == "depthwise" else (1, 2)
        kernel = numbers(draw, 2, 2 if case == "depthwise" else 3, 6)
        stride = numbers(draw, 2, 1, 2) if case == "depthwise" else [2, 2]
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        size = numbers(draw, 2, 3, 12) if case == "depthwise" else [2 * n for n in numbers(draw, 2, 3, 6)]
    output_padding = numbers(draw, rank, 0, 3) if transposed else [0] * rank
    assume(all(o < max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)))
    x = random(2, inside, *size)
    weight = random(*((inside, outside // groups) if transposed else (outside, inside // groups)), *kernel, seed=1)
    window = (stride, padding, dilation, transposed, output_padding, groups)
    out = computed(aten.convolution, x, weight, None, *window)
    assume(out.numel() > 0)
    return random(*out.shape, seed=2), x, weight, None, *window, [True, False, False]


def batch_norm_backward(draw: Draw) -> tuple:
    x = random(2, 3, *numbers(draw, draw(st.integers(0, 3)), 1, 5))
    weight = random(3, seed=2) if draw(st.booleans()) else None
    eps = draw(st.sampled_from([1e-5, 1e-3, 0.1]))
    statistics = (random(3, seed=3), random(3, seed=4).abs(), None, None, False, eps)
    return random(*x.shape, seed=1), x, weight, *statistics, [True, False, False]


def max_pool_backward(rank: int) -> Arguments:
    forward = {2: aten.max_pool2d_with_indices, 3: aten.max_pool3d_with_indices}[rank]

    def arguments(draw: Draw) -> tuple:
        kernel, stride, dilation = (numbers(draw, rank, 1, 4) for _ in range(3))
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        size = numbers(draw, rank, 1, 12 if rank == 2 else 6)
        assume(all(s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
        # With few different values, ties are frequent.
        x = random(*lead(draw), *size).round()
        window = (kernel, stride, padding, dilation, draw(st.booleans()))
        out, indices = computed(forward, x, *window)
        # A dilated window can miss the map entirely; PyTorch's backward pass then writes outside of its memory.
        assume(bool(out.isfinite().all()) and out.numel() > 0)
        return random(*out.shape, seed=1), x, *window, indices

    return arguments


def adaptive_max_pool(draw: Draw) -> tuple:
    return random(*lead(draw), *numbers(draw, 2, 1, 12)).round(), numbers(draw, 2, 1, 8)


def adaptive_max_pool_backward(draw: Draw) -> tuple:
    x, size = adaptive_max_pool(draw)
    out, indices = aten.adaptive_max_pool2d(x, size)
    return random(*out.shape, seed=1), x, indices


def avg_pool(rank: int) -> Arguments:
    def arguments(draw: Draw) -> tuple:
        kernel = numbers(draw, rank, 1, 5 if rank == 2 else 3)
        stride = draw(st.one_of(st.just([]), st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        size = numbers(draw, rank, 1, 12 if rank == 2 else 7)
        assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
        divisor = draw(st.one_of(st.none(), st.integers(1, 9)))
        return random(*lead(draw), *size), kernel, stride, padding, draw(st.booleans()), draw(st.booleans()), divisor

    return arguments


def avg_pool_backward(rank: int) -> Arguments:
    forward = {2: aten.avg_pool2d, 3: aten.avg_pool3d}[rank]

    def arguments(draw: Draw) -> tuple:
        x, *window = avg_pool(rank)(draw)
        return random(*computed(forward, x, *window).shape, seed=1), x, *window

    return arguments


def adaptive_avg_pool(rank: int) -> Arguments:
    def arguments(draw: Draw) -> tuple:
        limit = 17 if rank == 2 else 7
        return random(2, 3, *numbers(draw, rank, 1, limit)), numbers(draw, rank, 1, (limit + 1) // 2)

    return arguments


def adaptive_avg_pool_backward(rank: int) -> Arguments:
    def arguments(draw: Draw) -> tuple:
        x, size = adaptive_avg_pool(rank)(draw)
        return random(2, 3, *size, seed=1), x

    return arguments


def replication_pad_backward(rank: int) -> Arguments:
    forward = {1: aten.replication_pad1d, 2: aten.replication_pad2d, 3: aten.replication_pad3d}[rank]

    def arguments(draw: Draw) -> tuple:
        x = random(*lead(draw), *numbers(draw, rank, 1, 7))
        padding = numbers(draw, 2 * rank, -2, 4)
        out = computed(forward, x, padding)
        assume(out.numel() > 0)
        gradient = random(*out.shape, seed=1)
        computed(getattr(aten, f"replication_pad{rank}d_backward"), gradient, x, padding)
        return gradient, x, padding

    return arguments


def unfold_backward(draw: Draw) -> tuple:
    sizes = numbers(draw, draw(st.integers(1, 3)), 1, 9)
    dimension = draw(st.integers(-len(sizes), len(sizes) - 1))
    size, step = draw(st.integers(1, sizes[dimension])), draw(st.integers(1, 5))
    out = random(*sizes).unfold(dimension, size, step)
    return random(*out.shape, seed=1), sizes, dimension, size, step


def index_put(draw: Draw) -> tuple:
    """Draw indices that are neighbours or not, of equal shape or one for each axis of a grid, some of them negative."""
    sizes = numbers(draw, draw(st.integers(2, 4)), 1, 5)
    dimensions = sorted(draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1, max_size=3)))
    counts = numbers(draw, draw(st.integers(1, 2)), 1, 6)
    order = draw(st.permutations(range(len(dimensions))))
    is_grid = draw(st.booleans())
    indices: list[Tensor | None] = [None] * (dimensions[-1] + 1)
    for i, d in enumerate(dimensions):
        shape = [6 - i if axis == order[i] else 1 for axis in range(len(order))] if is_grid else counts
        indices[d] = torch.randint(-sizes[d], sizes[d], shape, generator=torch.Generator().manual_seed(i))
    x = random(*sizes)
    return x, indices, random(*x[tuple(slice(None) if i is None else i for i in indices)].shape, seed=1), True


def copy(draw: Draw) -> tuple:
    sizes = numbers(draw, draw(st.integers(1, 3)), 1, 4)
    given_sizes = [size if draw(st.booleans()) else 1 for size in sizes]
    source = random(*given_sizes[draw(st.integers(0, len(sizes))) :], seed=1)
    return random(*sizes), source.round().to(draw(st.sampled_from([torch.float64, torch.int64])))


def threshold(draw: Draw) -> tuple:
    return random(2, 3, 4).round(), draw(st.integers(-2, 2)) * 1.0, draw(st.floats(-3, 3))


def sgn(draw: Draw) -> tuple:
    return (random(*numbers(draw, 3, 1, 4)).round(),)


def var(draw: Draw) -> tuple:
    x = random(*numbers(draw, 3, 2, 5))
    dim = draw(st.one_of(st.none(), st.lists(st.sampled_from([0, 1, -1]), min_size=1, unique=True)))
    return x, dim, {"correction": draw(st.sampled_from([None, 0, 1, 1.5])), "keepdim": draw(st.booleans())}


ARGUMENTS: dict[Any, Arguments] = {
    aten.threshold.default: threshold,
    aten.sgn.default: sgn,
    aten.var.correction: var,
    aten.convolution_backward.default: convolution_backward,
    aten.native_batch_norm_backward.default: batch_norm_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward(2),
    aten.max_pool3d_with_indices_backward.default: max_pool_backward(3),
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.adaptive_max_pool2d_backward.default: adaptive_max_pool_backward,
    aten.avg_pool2d.default: avg_pool(2),
    aten.avg_pool3d.default: avg_pool(3),
    aten.avg_pool2d_backward.default: avg_pool_backward(2),
    aten.avg_pool3d_backward.default: avg_pool_backward(3),
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool(2),
    aten._adaptive_avg_pool3d.default: adaptive_avg_pool(3),
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool_backward(2),
    aten._adaptive_avg_pool3d_backward.default: adaptive_avg_pool_backward(3),
    aten.replication_pad1d_backward.default: replication_pad_backward(1),
    aten.replication_pad2d_backward.default: replication_pad_backward(2),
    aten.replication_pad3d_backward.default: replication_pad_backward(3),
    aten.unfold_backward.default: unfold_backward,
    aten.index_put.default: index_put,
    aten._unsafe_index_put.default: index_put,
    aten.copy.default: copy,
}

Mutation = tuple[str, str]
"""Text in the lowering's source file, and the text that replaces it in the mutant's."""
ADDED = ("empty.scatter_add(1", "empty.scatter(1")
WINNERS = ("return empty.scatter_add", "return -empty.scatter_add")
ONE_FEWER = ("end = min(start + kernel, size + padding)", "end = min(start + kernel - 1, size + padding)")
COUNTS: list[Mutation] = [
    ("start = i * stride - padding", "start = i * stride + padding"),
    ONE_FEWER,
    ("end - start if include_padding else", "end - start if not include_padding else"),
    ("math.prod(kernel) / divisor_override", "divisor_override / math.prod(kernel)"),
]
POOLED: list[Mutation] = [
    ("free = size + 2 * padding - kernel", "free = size + padding - kernel"),
    ("return pooled - 1 if ceil_mode and", "return pooled if ceil_mode and"),
]
SPREAD: list[Mutation] = [
    ("before = [k - 1 - p for", "before = [k - p for"),
    ("spread = put_zeros_between(gradient, stride)", "spread = put_zeros_between(gradient, stride[::-1])"),
]
WINDOW: list[Mutation] = [
    ("-((-(i + 1) * size) // pooled)", "(i + 1) * size // pooled"),
    ("i * size // pooled, ", "i, "),
]
EDGES: list[Mutation] = [
    ("torch.cat([first, inside, last], dimension)", "torch.cat([last, inside, first], dimension)"),
    ("return middle + torch.cat", "return middle - torch.cat"),
    ("return middle + first + last", "return middle + last"),
    ("max(0, -before), max(0, -after)", "max(0, -after), max(0, -before)"),
]
INDEXED: list[Mutation] = [
    ("index + x.shape[d], index) for", "-index, index) for"),
    ("target.scatter_add(", "target.scatter("),
    ("moved + values.permute(*axes,", "values.permute(*axes,"),
    ("values.permute(*axes, *range", "values.permute(*range(len(places)), *range"),
    ("dimensions[0] if dimensions ==", "0 if dimensions =="),
    ("flat * x.shape[d] + index", "flat + index"),
]
MUTATIONS: dict[Any, list[Mutation]] = {
    aten.threshold.default: [("x > threshold", "x >= threshold"), ("x, value)", "value, x)")],
    aten.sgn.default: [("torch.sign(x)", "-torch.sign(x)"), ("torch.sign(x)", "torch.sign(x + 0.5)")],
    aten.var.correction: [
        ("(1 if correction is None else correction)", "(0 if correction is None else correction)"),
        ("(count - (1", "(count + (1"),
        ("x - x.mean(dimensions, keepdim=True)", "x"),
    ],
    aten.convolution_backward.default: [
        ("pads = [r - p for", "pads = [p for"),
        ("return swapped.flip(list(range(2, weight.dim())))", "return swapped"),
        ("swapped.flip(list(range(2, weight.dim())))", "swapped.flip([2])"),
        ("split.transpose(1, 2)", "split"),
        ("(g - 1) * s - 2 * p + r + 1", "(g - 1) * s - 2 * p + r"),
        ("return fit(direct, sizes), None, None", "return direct, None, None"),
        ("conv.gradient), conv.stride, conv.sizes", "conv.gradient), conv.stride[::-1], conv.sizes"),
        ("size - r + 2 * p for size", "size - r + p for size"),
        ("conv.gradient, conv.stride, sizes", "conv.gradient, conv.stride[::-1], sizes"),
        ("range(first, kernel, 2))[::-1]", "range(first, kernel, 2))"),
        ("(parity + padding) % 2, ", "parity, "),
        ("len(taps) - 1 - shift", "len(taps) - 1"),
        (
            "[column.before, column.after, row.before, row.after]",
            "[row.before, row.after, column.before, column.after]",
        ),
        ("reshape([4, 1, 2, 2])", "reshape([4, 1, 2, 2]).transpose(2, 3)"),
        ("conv.dilation, True, missing, conv.groups\n    )", "conv.dilation, True, missing, conv.groups\n    ) * -1"),
    ],
    aten.native_batch_norm_backward.default: [
        ("torch.rsqrt(running_var + eps)", "torch.rsqrt(running_var)"),
        ("torch.rsqrt(running_var + eps)", "-torch.rsqrt(running_var + eps)"),
        ("scale * weight", "scale"),
    ],
    aten.max_pool2d_with_indices_backward.default: [ADDED, WINNERS],
    aten.max_pool3d_with_indices_backward.default: [ADDED, WINNERS],
    aten.adaptive_max_pool2d_backward.default: [ADDED, WINNERS],
    aten.adaptive_max_pool2d.default: [
        *WINDOW,
        ("r * width + c", "c * width + r"),
        ("w + w[-1:] *", "w[::-1] + w[-1:] *"),
        ("positions.flatten()[winner + offsets]", "positions.flatten()[winner]"),
    ],
    aten.avg_pool2d.default: [*COUNTS, *POOLED],
    aten.avg_pool3d.default: [*COUNTS, *POOLED],
    aten.avg_pool2d_backward.default: [*COUNTS, *SPREAD],
    aten.avg_pool3d_backward.default: [*COUNTS, *SPREAD],
    aten._adaptive_avg_pool2d.default: [*WINDOW, ("1.0 / len(window)", "1.0")],
    aten._adaptive_avg_pool3d.default: [*WINDOW, ("1.0 / len(window)", "1.0")],
    aten._adaptive_avg_pool2d_backward.default: [*WINDOW, ("1.0 / len(window)", "2.0 / len(window)")],
    aten._adaptive_avg_pool3d_backward.default: [*WINDOW, ("1.0 / len(window)", "2.0 / len(window)")],
    aten.replication_pad1d_backward.default: EDGES,
    aten.replication_pad2d_backward.default: EDGES,
    aten.replication_pad3d_backward.default: EDGES,
    aten.unfold_backward.default: [
        ("total + placed", "placed"),
        ("wanted - start - count * step", "wanted - count * step"),
        ("moved[..., start : start + step]", "moved[..., start : start + step - 1]"),
    ],
    aten.index_put.default: INDEXED,
    aten._unsafe_index_put.default: INDEXED,
    aten.copy.default: [(".expand(x.shape)", ""), ("source.to(x.dtype)", "source"), ("source.to(", "-source.to(")],
}


def mutant(function: Callable[..., Any], mutation: Mutation) -> Callable[..., Any]:
    """Return the same function, compiled from its module's changed source."""
    original = sys.modules[function.__module__]
    source, (old, new) = inspect.getsource(original), mutation
    assert old in source, f"{old!r} is not in the source of {original.__name__}"
    module = types.ModuleType(original.__name__)
    module.__package__ = original.__package__
    exec(compile(source.replace(old, new), f"<mutant of {original.__name__}>", "exec"), module.__dict__)
    return getattr(module, function.__name__)


def check(function: Callable[..., Any], target: Any, data: st.DataObject) -> None:
    arguments = ARGUMENTS[target](data.draw)
    options = arguments[-1] if isinstance(arguments[-1], dict) else {}
    arguments = arguments[: len(arguments) - bool(options)]
    ours = function(*arguments, **options)
    assume(ours is not NotImplemented)  # ONNX's own operator is enough
    assert_same(ours, computed(target, *arguments, **options))


def test_every_lowering_is_tested_and_has_mutants() -> None:
    assert set(ARGUMENTS) == set(MUTATIONS) == set(TABLE)
    assert all(MUTATIONS.values())


@pytest.mark.parametrize("target", TABLE, ids=str)
@many
@given(data=st.data())
def test_a_lowering_agrees_with_pytorch(target: Any, data: st.DataObject) -> None:
    check(TABLE[target], target, data)


@pytest.mark.parametrize(
    ("target", "mutation"),
    [(target, mutation) for target, mutations in MUTATIONS.items() for mutation in mutations],
    ids=lambda value: "->".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_mutant_fails(target: Any, mutation: Mutation) -> None:
    wrong = mutant(TABLE[target], mutation)

    @until_it_fails
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        check(wrong, target, data)

    # A mutant may also pass invalid arguments to PyTorch.
    with pytest.raises((AssertionError, RuntimeError, ZeroDivisionError)):
        run()


def test_training_batch_norm_is_refused() -> None:
    x = random(1, 2, 3, 3)
    with pytest.raises(NotImplementedError, match="statistics"):
        norms.batch_norm_backward(x, x, None, x, x, None, None, True, 1e-5, [True, False, False])
