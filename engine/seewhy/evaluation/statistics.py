"""Statistics of measured values: bootstrap intervals, paired tests, and a correction for many tests.

Values of crops of one image depend on each other, so clusters of values are resampled and compared, not values. An
image without crops is a cluster of its own. Missing values are NaN. All random numbers come from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Integers

Doubles = NDArray[np.float64]

RESAMPLES = 2000
"""Number of bootstrap resamples. The ends of 95 % intervals then vary little between seeds."""
CONFIDENCE = 0.95
"""Confidence level of the intervals."""
EXACT_CLUSTERS = 12
"""Largest number of clusters for which all 2^12 = 4,096 flips of signs are tried."""
FLIPS = 10_000
"""Number of random flips of signs for more clusters."""
SIGNIFICANCE = 0.05
"""Level of the tests: a difference is clear if its corrected p-value is at most this."""
# Largest number of elements of a random matrix, so that 100,000 clusters need tens of MiB and not gigabytes.
_BLOCK = 2**20
# Sums of the same numbers in another order differ by rounding. Sums closer than this share of the total are equal.
_ROUNDING = 1e-12


class PairTest(NamedTuple):
    """Comparison of two columns over the rows in which both have a value."""

    first: int
    """First column."""
    second: int
    """Second column."""
    n: int
    """Number of rows."""
    difference: float
    """Mean of first minus second."""
    p: float
    """Two-sided p-value, without correction."""


def means(values: Doubles) -> Doubles:
    """Return the mean of each column of `values` (n, k) without its missing values, NaN if all are missing."""
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    totals = np.where(present, values, 0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def bootstrap_intervals(values: Doubles, clusters: Integers, seed: int) -> Doubles:
    """Return percentile intervals of the mean of each column.

    Whole clusters are drawn with replacement, as many as there are, and the mean is that of all values of the drawn
    clusters: Efron and Tibshirani 1993, An introduction to the bootstrap, section 13.3 (percentile interval); Davison
    and Hinkley 1997, Bootstrap methods and their application, section 3.8 (clusters). Columns whose values are missing
    in the same rows share their resamples.

    Args:
        values: Values, float64 of shape (n, k); NaN where there is none.
        clusters: Cluster of each row, int64 of shape (n,), from 0.
        seed: Seed of the random numbers.

    Returns:
        Lower and upper ends, float64 of shape (k, 2). They are NaN for a column with values in fewer than two clusters,
        because one cluster says nothing about how clusters differ.
    """
    intervals = np.full((values.shape[1], 2), np.nan)
    patterns, group = np.unique(~np.isnan(values), axis=1, return_inverse=True)
    for number, present in enumerate(patterns.T):
        _, rows = np.unique(clusters[present], return_inverse=True)
        count = int(rows.max()) + 1 if rows.size else 0
        if count < 2:
            continue
        columns = np.flatnonzero(group.ravel() == number)
        sums, sizes = _sums(values[np.ix_(present, columns)], rows, count), np.bincount(rows, minlength=count)
        rng = np.random.default_rng(seed)
        drawn = [weights @ sums / (weights @ sizes)[:, None] for weights in _resamples(count, rng)]
        tail = (1 - CONFIDENCE) / 2
        intervals[columns] = np.quantile(np.concatenate(drawn), (tail, 1 - tail), axis=0).T
    return intervals


def _resamples(count: int, rng: np.random.Generator) -> Iterator[Doubles]:
    """Yield, in blocks, how often each resample holds each of `count` clusters, of shape (resamples, count)."""
    for size in _blocks(RESAMPLES, count):
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def sign_flip_tests(values: Doubles, clusters: Integers, seed: int) -> list[PairTest]:
    """Test all pairs of columns for a difference of their means, two-sided and without correction.

    Under the null hypothesis, the two values of a row could be exchanged, in all rows of a cluster at once. The
    statistic is the absolute sum of the differences, in which each cluster's sum has its sign flipped or not: Good
    2005, Permutation, parametric and bootstrap tests of hypotheses, section 3.2 (the matched-pairs test). Up to
    `EXACT_CLUSTERS` clusters all flips are tried. For more, random flips are drawn and the observed one is counted with
    them, so that p is never 0: Phipson and Smyth 2010, Permutation p-values should never be zero, equation 2.

    Args:
        values: Values, float64 of shape (n, k); NaN where there is none.
        clusters: Cluster of each row, int64 of shape (n,), from 0.
        seed: Seed of the random numbers.

    Returns:
        The comparisons of all pairs of columns with at least one row in which both have a value.
    """
    found: list[tuple[int, int, int, float]] = []
    sums = []
    count = int(clusters.max()) + 1 if clusters.size else 0
    for first, second in combinations(range(values.shape[1]), 2):
        difference = values[:, first] - values[:, second]
        present = ~np.isnan(difference)
        if present.any():
            found.append((first, second, int(present.sum()), float(difference[present].mean())))
            sums.append(np.bincount(clusters[present], difference[present], count))
    p_values = _p_values(np.stack(sums, axis=1), seed) if sums else []
    return [PairTest(*one, p) for one, p in zip(found, p_values, strict=True)]


def _p_values(sums: Doubles, seed: int) -> list[float]:
    """Return p for each column of sums of differences, of shape (clusters, pairs)."""
    count, pairs = sums.shape
    observed, total = np.abs(sums.sum(axis=0)), sums.sum(axis=0)
    least = observed - _ROUNDING * np.abs(sums).sum(axis=0)
    exact = count <= EXACT_CLUSTERS
    # So many flips that the smallest p remains significant after the correction for all pairs.
    flips = 2**count if exact else max(FLIPS, round(2 * pairs / SIGNIFICANCE))
    extreme = np.zeros(pairs, np.int64)
    rng = np.random.default_rng(seed)
    start = 0
    for size in _blocks(flips, count):
        if exact:
            kept = ((np.arange(start, start + size)[:, None] >> np.arange(count)) & 1).astype(np.float64)
        else:
            packed = np.frombuffer(rng.bytes(-(-size * count // 8)), np.uint8)
            kept = np.unpackbits(packed, count=size * count).reshape(size, count).astype(np.float64)
        start += size
        # The sum with signs is the sum of what keeps its sign, minus the rest.
        extreme += (np.abs(2 * (kept @ sums) - total) >= least).sum(axis=0)
    p: Doubles = extreme / flips if exact else (extreme + 1) / (flips + 1)
    return [float(one) for one in p]


def _sums(values: Doubles, rows: Integers, count: int) -> Doubles:
    """Return the sums of the values (n, k) of each of `count` clusters, of shape (count, k)."""
    return np.stack([np.bincount(rows, column, count) for column in values.T], axis=1)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Yield numbers of rows that add up to `total`, so that each block of this width has at most `_BLOCK` elements."""
    size = max(1, _BLOCK // max(1, width))
    yield from (min(size, total - start) for start in range(0, total, size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests.

    Among all tests whose null hypothesis is true, the probability that any corrected value is at most 0.05 is at most
    0.05: Holm 1979, A simple sequentially rejective multiple test procedure, section 3.

    Args:
        p_values: The p-values.

    Returns:
        The corrected p-values in the same order, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    count = len(order)
    corrected = np.empty(count)
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(count, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(one) for one in corrected]


def fewest_clusters(pairs: int) -> int:
    """Return the number of clusters below which no test of so many pairs can give a clear difference."""
    # The smallest p of an exact test is 2 / 2^clusters, and Holm's correction multiplies it by the number of pairs.
    return 1 + int(np.ceil(np.log2(max(1, pairs) / SIGNIFICANCE)))
