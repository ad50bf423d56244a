"""Tests of the statistics against SciPy, hand-computed values and simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seewhy.evaluation import statistics
from seewhy.evaluation.statistics import bootstrap_intervals, fewest_clusters, holm, means, sign_flip_tests


def single(count: int) -> np.ndarray:
    return np.arange(count)


def test_means_leave_out_missing_values() -> None:
    values = np.array([[1.0, np.nan, np.nan], [4.0, 7.0, np.nan]])
    np.testing.assert_array_equal(means(values), [2.5, 7.0, np.nan])


def test_an_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=40)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    found = bootstrap_intervals(values[:, None], single(40), 0)[0]
    # Both are estimates from random resamples; ends vary by some hundredths of the interval's width.
    np.testing.assert_allclose(found, expected, atol=0.05 * (expected.high - expected.low))


def test_an_interval_of_two_clusters_is_known() -> None:
    # A resample holds the first cluster alone, the second alone, or both: means 0, 1 and 1/2, with 1/4, 1/4 and 1/2.
    values, clusters = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(bootstrap_intervals(values[:, None], clusters, 0), [[0, 1]])


def test_clusters_of_different_size_weigh_by_their_values() -> None:
    # A resample of both clusters has the mean 3/4 of all its values, and not 1/2.
    values, clusters = np.array([0.0, 1.0, 1.0, 1.0])[:, None], np.array([0, 1, 1, 1])
    drawn = [
        weights @ np.array([0.0, 3.0]) / (weights @ np.array([1, 3]))
        for weights in statistics._resamples(2, np.random.default_rng(0))
    ]
    assert set(np.concatenate(drawn)) == {0.0, 0.75, 1.0}
    np.testing.assert_array_equal(bootstrap_intervals(values, clusters, 0), [[0, 1]])


def test_an_interval_of_one_cluster_is_undefined() -> None:
    values = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, np.nan]])
    assert np.isnan(bootstrap_intervals(values, np.zeros(3, int), 0)).all()
    assert np.isnan(bootstrap_intervals(values, single(3), 0)[1]).all()
    assert np.isnan(bootstrap_intervals(np.full((3, 1), np.nan), single(3), 0)).all()


def test_missing_values_do_not_change_the_interval_of_the_others() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    values[5:9, 1] = np.nan
    found = bootstrap_intervals(values, single(30), 4)
    np.testing.assert_array_equal(found[0], bootstrap_intervals(values[:, :1], single(30), 4)[0])
    kept = np.delete(values[:, 1:], range(5, 9), axis=0)
    np.testing.assert_array_equal(found[1], bootstrap_intervals(kept, single(26), 4)[0])


def test_intervals_cover_the_true_mean() -> None:
    rng = np.random.default_rng(11)
    # Clusters of five values that share an effect. Their correlation makes an interval of single values too narrow.
    clusters = np.repeat(single(40), 5)
    values = rng.normal(size=(40, 500)).repeat(5, axis=0) + 0.3 * rng.normal(size=(200, 500))
    by_cluster = bootstrap_intervals(values, clusters, 0)
    by_value = bootstrap_intervals(values, single(200), 0)
    covered = [((one[:, 0] <= 0) & (one[:, 1] >= 0)).mean() for one in (by_cluster, by_value)]
    assert 0.91 <= covered[0] <= 0.97
    assert covered[1] < 0.75


def test_blocks_do_not_change_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(12, 3)) + np.array([0, 0.5, 1])
    whole = bootstrap_intervals(values, single(12), 7), sign_flip_tests(values, single(12), 7)
    monkeypatch.setattr(statistics, "_BLOCK", 100)
    np.testing.assert_array_equal(bootstrap_intervals(values, single(12), 7), whole[0])
    assert sign_flip_tests(values, single(12), 7) == whole[1]


def test_an_exact_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(9, 3)) + np.array([0, 0.4, 1.5])
    for first, second, rows, difference, p in sign_flip_tests(values, single(9), 0):
        pair = values[:, first], values[:, second]
        expected = stats.permutation_test(
            pair, lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert (rows, p) == (9, pytest.approx(expected.pvalue, abs=1e-12))
        assert difference == pytest.approx(expected.statistic, abs=1e-12)


def test_a_random_test_agrees_with_scipy() -> None:
    values = np.random.default_rng(6).normal(size=(30, 2)) + np.array([0, 0.1])
    expected = stats.permutation_test(
        tuple(values.T),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=50_000,
        vectorized=True,
        rng=np.random.default_rng(8),
    ).pvalue
    ((*_, p),) = sign_flip_tests(values, single(30), 0)
    assert 0.02 < expected < 0.5
    assert p == pytest.approx(expected, abs=0.012)


def test_equal_sums_count_as_equal() -> None:
    # Of the 8 sums with signs, those with one flip equal the observed one in theory, but not after rounding.
    values = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
    ((*_, p),) = sign_flip_tests(values, single(3), 0)
    assert p == 2 / 8
    ((*_, p),) = sign_flip_tests(np.array([[0.1, 0.0], [0.2, 0.0], [0.0, 0.3]]), single(3), 0)
    assert p == 1


def test_a_cluster_flips_as_one() -> None:
    values = np.stack([np.ones(12), np.zeros(12)], axis=1)
    for count in (2, 3, 6):
        ((_, _, rows, difference, p),) = sign_flip_tests(values, np.repeat(single(count), 12 // count), 0)
        assert (rows, difference, p) == (12, 1.0, 2 / 2**count)


def test_pairs_are_compared_where_both_have_a_value() -> None:
    values = np.array([[1.0, 0.0, np.nan], [np.nan, 5.0, np.nan], [3.0, 1.0, np.nan]])
    assert sign_flip_tests(values, single(3), 0) == [(0, 1, 2, 1.5, 0.5)]
    assert sign_flip_tests(np.empty((0, 2)), single(0), 0) == []


def test_a_random_p_value_is_never_zero() -> None:
    values = np.stack([np.ones(60), np.zeros(60)], axis=1)
    assert sign_flip_tests(values, single(60), 0)[0][-1] == 1 / 10_001


def test_many_pairs_have_enough_flips_for_a_clear_difference() -> None:
    values = np.arange(40.0) + np.zeros((20, 1))
    p_values = [p for *_, p in sign_flip_tests(values, single(20), 0)]
    assert len(p_values) == 780 and max(holm(p_values)) < 0.05


def test_equal_methods_are_rarely_clearly_different() -> None:
    rng = np.random.default_rng(13)
    clear = 0
    for seed in range(200):
        values = rng.normal(size=(15, 4))
        p_values = [p for *_, p in sign_flip_tests(values, single(15), seed)]
        clear += min(holm(p_values)) <= 0.05
    # Holm's correction promises at most 5 %; 200 simulations stay below 9 % with a probability of over 99 %.
    assert clear <= 18


def test_holm_by_hand() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, and no value below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("pairs", [1, 3, 10, 21])
def test_the_fewest_clusters_for_a_clear_difference(pairs: int) -> None:
    fewest = fewest_clusters(pairs)
    for count, clear in ((fewest - 1, False), (fewest, True)):
        ((*_, p),) = sign_flip_tests(np.stack([np.ones(count), np.zeros(count)], axis=1), single(count), 0)
        assert (holm([p] * pairs)[0] <= 0.05) is clear
