import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seewhy.metrics.rank_correlation import average_ranks, spearman

# Few different values, so that most arrays have ties.
_values = st.one_of(st.integers(-3, 3).map(float), st.floats(-(2.0**99), 2.0**99, width=32))


@given(arrays(np.float32, st.integers(1, 40), elements=_values))
def test_ranks_equal_those_of_scipy(values):
    np.testing.assert_array_equal(average_ranks(values), scipy.stats.rankdata(values))


@given(st.integers(2, 40).flatmap(lambda n: st.tuples(*[arrays(np.float32, n, elements=_values)] * 2)))
def test_correlation_equals_that_of_scipy(pair):
    first, second = pair
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(spearman(first, second))
    else:
        assert spearman(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)


def test_a_case_computed_by_hand():
    # Ranks 1, 2.5, 2.5, 4 and 2, 1, 3, 4: products of the differences from 2.5 add up to 3, squares to 4.5 and 5.
    assert spearman([[0, 1], [1, 9]], [[5, 4], [6, 7]]) == pytest.approx(3 / np.sqrt(22.5))


def test_large_maps_agree_with_scipy():
    rng = np.random.default_rng(0)
    first = np.maximum(rng.standard_normal((224, 224)), 0).astype(np.float32)  # half of the values are equal
    second = (first + rng.standard_normal((224, 224))).astype(np.float32)
    expected = scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic
    assert spearman(first, second) == pytest.approx(expected, abs=1e-12)
    assert spearman(first, first * 2) == 1
    assert spearman(first, -first) == -1


@pytest.mark.parametrize("other", [[1, 1, 1], [0, 1, np.nan], [0, 1, np.inf]])
def test_constant_and_non_finite_values_give_nan(other):
    assert np.isnan(spearman([1, 2, 3], other))
    assert np.isnan(spearman(other, [1, 2, 3]))


def test_empty_arrays_give_nan():
    assert np.isnan(spearman([], []))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"not \(2, 3\) and \(3, 2\)"):
        spearman(np.zeros((2, 3)), np.zeros((3, 2)))
