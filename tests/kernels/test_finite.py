"""Tests of the kernels that find non-finite numbers, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy import _core

BAD = [np.nan, -np.nan, np.inf, -np.inf]
SHAPES = [(3, 4, 5, 6), (2, 70_000), (5,), (4, 33)]


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (0, 3), (3, 0)])
def test_finite(shape: tuple[int, ...]) -> None:
    limits = np.finfo(np.float32)
    values = np.random.default_rng(1).choice(np.array([limits.min, limits.max, 0, -0.0, 1e-45], np.float32), shape)
    assert _core.first_not_finite(values) is None
    copy, row = _core.finite_copy(values)
    assert row is None and copy.tobytes() == values.tobytes() and copy.shape == shape


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_position_is_checked(shape: tuple[int, ...], bad: float, threads: int) -> None:
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    flat = values.reshape(-1)
    for place in {0, 1, flat.size // 2, flat.size - 2, flat.size - 1, *range(0, flat.size, max(1, flat.size // 40))}:
        kept, flat[place] = flat[place].copy(), bad
        expected = place // (flat.size // shape[0])
        assert _core.first_not_finite(values) == (0, expected)
        assert _core.finite_copy(values, threads)[1] == expected
        flat[place] = kept


def test_the_first_of_several() -> None:
    values = np.zeros((6, 50), np.float32)
    values[5, 3], values[2, 49], values[3, 0] = np.nan, np.inf, np.nan
    assert _core.first_not_finite(values) == (0, 2)
    assert _core.finite_copy(values)[1] == 2


def test_the_first_of_several_arrays() -> None:
    fine, one, other = (np.zeros((3, 4), np.float32) for _ in range(3))
    assert _core.first_not_finite() is None
    assert _core.first_not_finite(fine, one, other) is None
    one[2, 1] = other[0, 0] = np.nan
    assert _core.first_not_finite(fine, one, other) == (1, 2)
    assert _core.first_not_finite(other, fine, one) == (0, 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_copy_of_many_values(threads: int) -> None:
    values = np.random.default_rng(3).standard_normal((7, 150_001)).astype(np.float32)
    copy, row = _core.finite_copy(values, threads)
    assert row is None and np.array_equal(copy, values) and not np.shares_memory(copy, values)
    assert copy.flags.c_contiguous and copy.flags.writeable and copy.flags.owndata


def test_arguments() -> None:
    for kernel in (_core.first_not_finite, _core.finite_copy):
        with pytest.raises(ValueError, match=r"must have an axis for the images, not shape \(\)"):
            kernel(np.array(1, np.float32))
        with pytest.raises(TypeError, match="values must be float32, not float64"):
            kernel(np.zeros(3))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="values must be C-contiguous"):
            kernel(np.zeros((3, 4), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="threads must be 0 or more"):
        _core.finite_copy(np.zeros(3, np.float32), -1)
