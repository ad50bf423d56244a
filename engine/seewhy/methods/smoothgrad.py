"""SmoothGrad: the gradient's mean over noisy copies of the image (Smilkov et al. 2017, arXiv:1706.03825)."""

from __future__ import annotations

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy.methods.base import ATTRIBUTIONS
from seewhy.methods.multi_pass import Batch, MultiPass, sum_gradients
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """1/n sum_i dy/dx(x + e_i), e_i drawn from N(0, s^2), s = noise * (max x - min x) over the whole image.

    The same e_i / s are drawn for every image and class, from `seed` alone: the answer for an image depends neither on
    the batch nor on its place in it. y is the class chosen for the image without noise.
    """
    pixels = batch.pixels.reshape(len(batch.pixels), -1)
    deviations = np.float32(options["noise"]) * (pixels.max(axis=1) - pixels.min(axis=1))

    def noisy(image: int, sample: int) -> Floats:
        result: Floats = batch.pixels[image] + deviations[image] * draw(options["seed"], sample, batch.pixels.shape[1:])
        return result

    samples = options["samples"]
    return {ATTRIBUTIONS: sum_gradients(batch, np.full(samples, 1 / samples), noisy)}


def draw(seed: int, sample: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal noise for one sample: NumPy's default generator, from the seed's child of that number."""
    # Not (seed, sample), which for seeds of more than 32 bits is another pair's noise too.
    child = np.random.SeedSequence(seed, spawn_key=(sample,))
    noise: Floats = np.random.default_rng(child).standard_normal(shape, np.float32)
    return noise


PASSES = MultiPass(_run, lambda batch, options: batch.targets.shape[1] * int(options["samples"]))
