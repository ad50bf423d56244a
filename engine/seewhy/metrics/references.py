"""Reference rows: maps that know nothing of the model, and say what a number is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seewhy._shared.arrays import Floats


@dataclass(frozen=True)
class Reference:
    """A reference row."""

    title: str
    map: Callable[[Floats, np.random.Generator], Floats]
    """Function that returns the map (H, W), from a method's map for the image and a generator."""


def _shuffled(pattern: Floats, rng: np.random.Generator) -> Floats:
    """Return the values of a map at random pixels."""
    return rng.permutation(pattern.ravel()).reshape(pattern.shape)


def _gaussian(pattern: Floats, rng: np.random.Generator) -> Floats:
    """Return a Gaussian at the centre, whose standard deviation is a quarter of each side."""
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in pattern.shape)
    y, x = ((4 * at / length) ** 2 / 2 for at, length in zip((rows, columns), pattern.shape, strict=True))
    result: Floats = np.exp(-(y[:, None] + x[None])).astype(np.float32)
    return result


REFERENCES = {
    "random": Reference("Random", _shuffled),
    "centre": Reference("Centre", _gaussian),
}
"""References by name: the values of the first method shuffled over the pixels, and a centred Gaussian."""
