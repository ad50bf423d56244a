"""Tests of `seewhy_export._shared.error_measure`: the relative L2 error, and the bound that it must keep."""

import math

import pytest
import torch

from seewhy_export._shared.error_measure import error_bound, is_within_bound, relative_error


def test_the_error_is_relative_to_the_reference() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0


def test_other_shapes_are_infinitely_wrong() -> None:
    assert relative_error(torch.ones(1, 3), torch.ones(3)) == math.inf


def test_a_zero_reference_is_not_tested() -> None:
    error = relative_error(torch.ones(3), torch.zeros(3))
    assert error is None
    assert is_within_bound(error, None)


@pytest.mark.parametrize(
    ("error", "float32_error", "within"),
    [
        (9e-5, 0.0, True),
        (9e-5, None, True),
        (9e-5, math.inf, True),
        (1.1e-4, 1e-6, False),
        (1.1e-4, math.nan, False),
        (3.9e-3, 1e-3, True),
        (4.1e-3, 1e-3, False),
        (2.0, 0.6, False),
        (math.nan, 1.0, False),
        (math.inf, math.inf, False),
    ],
)
def test_an_error_keeps_its_bound(error: float, float32_error: float | None, within: bool) -> None:
    assert is_within_bound(error, float32_error) is within


def test_a_larger_tolerance_widens_the_bound_up_to_its_limit() -> None:
    assert error_bound(1e-6, tolerance=2e-2) == 2e-2
    assert error_bound(1e-2, tolerance=2e-2) == pytest.approx(4e-2)
    assert error_bound(1.0, tolerance=2e-2) == 0.1
