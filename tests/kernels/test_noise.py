"""Tests of `add_normal_noise` against a literal reference, and of its distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from seewhy import _core
from support.references import noise


def state(seed: int) -> np.ndarray:
    return np.random.SeedSequence(seed).generate_state(64).reshape(4, 16)


def drawn(seed: int, size: int) -> np.ndarray:
    return _core.add_normal_noise(np.zeros(size, np.float32), 1, state(seed))


def test_the_reference_is_the_published_generator() -> None:
    """The words are those of the test of the crate rand_xoshiro, which come from the C code of the authors."""
    published = [641, 1573767, 3222811527, 3517856514, 836907274, 4247214768, 3867114732, 1355841295]
    assert list(itertools.islice(noise.xoshiro128_plus_plus([1, 2, 3, 4]), 8)) == published


@pytest.mark.parametrize("size", [0, 1, 255, 511, 512, 513, 20_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_the_reference(seed: int, size: int) -> None:
    """Logarithm, root, sine and cosine are each rounded to float32 a few times, and values are up to 6.7."""
    found = drawn(seed, size)
    assert found.dtype == np.float32 and found.shape == (size,)
    np.testing.assert_allclose(found, noise.normal_noise(state(seed), size), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("word", [0, 1, 2, 2**30, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
def test_extreme_words(word: int) -> None:
    """The first words of a generator with a state of (word, 0, 0, 0) include the smallest and the largest uniform."""
    extreme = np.zeros((4, 16), np.uint32)
    extreme[0] = word
    found = _core.add_normal_noise(np.zeros(512, np.float32), 1, extreme)
    assert np.isfinite(found).all() and np.abs(found).max() < 6.7
    np.testing.assert_allclose(found, noise.normal_noise(extreme, 512), rtol=2e-6, atol=2e-6)


def test_the_distribution_is_normal() -> None:
    """Compare the empirical distribution of a million values with the normal one (Kolmogorov-Smirnov)."""
    count = 2**20
    values = np.sort(drawn(5, count).astype(np.float64))
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in values[::64]])
    distance = np.abs(expected - (np.arange(count)[::64] + 0.5) / count).max()
    assert distance < 1.95 / math.sqrt(count)  # the seed is fixed; a right generator exceeds this in 0.1 % of all seeds
    tail = np.mean(np.abs(values) > 4)
    assert tail == pytest.approx(6.334e-5, rel=0.5)  # 66 values are expected, with a standard deviation of 8


def test_values_are_independent() -> None:
    """Correlate values with those that follow at any distance, and both values of each pair, also squared."""
    values = drawn(6, 2**18).astype(np.float64)
    for one in (values, values**2 - 1):
        spectrum = np.abs(np.fft.rfft(one, 2 * len(one))) ** 2
        correlation = np.fft.irfft(spectrum)[1:2048] / (one @ one)
        assert np.abs(correlation).max() < 5.5 / math.sqrt(len(one))


def test_noise_is_scaled_and_added() -> None:
    """The product and the sum are each rounded to float32, as in NumPy."""
    values = np.random.default_rng(0).standard_normal((3, 20, 31)).astype(np.float32)
    found = _core.add_normal_noise(values, 0.3, state(1))
    noise = drawn(1, values.size).reshape(values.shape)
    np.testing.assert_array_equal(found, values + np.float32(0.3) * noise)


def test_wrong_arguments_are_errors() -> None:
    values = np.zeros(4, np.float32)
    with pytest.raises(TypeError, match=r"^state must be uint32, not int64$"):
        _core.add_normal_noise(values, 1, state(0).astype(np.int64))
    with pytest.raises(ValueError, match=r"^state must have shape \(4, 16\), not \(64,\)$"):
        _core.add_normal_noise(values, 1, state(0).ravel())
    with pytest.raises(TypeError, match=r"^values must be float32, not float64$"):
        _core.add_normal_noise(values.astype(np.float64), 1, state(0))
