"""Reference implementation of the standard normal noise, word by word, in Python's integers and float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def xoshiro128_plus_plus(state: list[int]) -> Iterator[int]:
    """Yield the words of the generator, as in the C code of its authors (https://prng.di.unimi.it)."""
    s = list(state)

    def rotl(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & 0xFFFFFFFF

    while True:
        yield (rotl((s[0] + s[3]) & 0xFFFFFFFF, 7) + s[0]) & 0xFFFFFFFF
        t = (s[1] << 9) & 0xFFFFFFFF
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 11)


def uniform(word: int) -> float:
    """Return a number above 0 and at most 1, which is rounded to float32 because the noise near 0 depends on it."""
    return float(np.float32(word // 2) * np.float32(2.0**-31) + np.float32(2.0**-32))


def normal_noise(state: NDArray[np.uint32], size: int) -> NDArray[np.float64]:
    """Return standard normal values, float64 of shape (size,), for the states (4, 16) of sixteen generators."""
    generators = [xoshiro128_plus_plus([int(word) for word in lane]) for lane in state.T]
    values: list[float] = []
    while len(values) < size:
        words = [next(generator) for _ in range(32) for generator in generators]
        pairs = list(zip(words[:256], words[256:], strict=True))
        radii = [math.sqrt(-2 * math.log(uniform(u))) for u, _ in pairs]
        # The upper two bits choose the quadrant, which is centered on an axis.
        angles = [math.pi / 2 * (v // 2**30 + (v % 2**30 - 2**29) / 2**30) for _, v in pairs]
        values += [radius * math.cos(angle) for radius, angle in zip(radii, angles, strict=True)]
        values += [radius * math.sin(angle) for radius, angle in zip(radii, angles, strict=True)]
    return np.array(values[:size])
