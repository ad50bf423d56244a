"""Tests of the kernel that finds non-finite numbers, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy import _core

BAD = [np.nan, -np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 70_000), (5,), (1, 1), (4, 33), (0, 3), (3, 0)])
def test_finite(shape: tuple[int, ...]) -> None:
    limits = np.finfo(np.float32)
    values = np.random.default_rng(1).choice(np.array([limits.min, limits.max, 0, -0.0, 1e-45], np.float32), shape)
    assert _core.first_not_finite(values) is None


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 70_000), (5,), (4, 33)])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_position_is_checked(shape: tuple[int, ...], bad: float, threads: int) -> None:
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    flat = values.reshape(-1)
    for place in {0, 1, flat.size // 2, flat.size - 2, flat.size - 1, *range(0, flat.size, max(1, flat.size // 40))}:
        kept, flat[place] = flat[place].copy(), bad
        assert _core.first_not_finite(values, threads) == place // (flat.size // shape[0])
        flat[place] = kept


def test_the_first_of_several() -> None:
    values = np.zeros((6, 50), np.float32)
    values[5, 3], values[2, 49], values[3, 0] = np.nan, np.inf, np.nan
    assert _core.first_not_finite(values) == 2


def test_arguments() -> None:
    with pytest.raises(ValueError, match=r"must have an axis for the images, not shape \(\)"):
        _core.first_not_finite(np.array(1, np.float32))
    with pytest.raises(TypeError, match="values must be float32, not float64"):
        _core.first_not_finite(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="values must be C-contiguous"):
        _core.first_not_finite(np.zeros((3, 4), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="threads must be 0 or more"):
        _core.first_not_finite(np.zeros(3, np.float32), -1)
