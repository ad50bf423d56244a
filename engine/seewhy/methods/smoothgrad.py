"""SmoothGrad: the mean gradient of noisy copies of the image (Smilkov et al. 2017, arXiv:1706.03825)."""

from __future__ import annotations

import numpy as np

from seewhy._core import add_normal_noise
from seewhy._shared.arrays import Floats
from seewhy.methods.base import ATTRIBUTIONS
from seewhy.methods.multi_pass import Batch, MultiPass, sum_gradients
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """Return 1/n sum_i dy/dx(x + e_i), where e_i is drawn from N(0, s^2) and s = noise * (max x - min x).

    Maximum and minimum are those of the whole image. The values e_i / s depend on `seed` alone and are the same for
    every image and class, so the result for an image does not depend on its batch. y is the logit of the class that was
    chosen for the image without noise.
    """
    pixels = batch.pixels.reshape(len(batch.pixels), -1)
    deviations = np.float32(options["noise"]) * (pixels.max(axis=1) - pixels.min(axis=1))

    def noisy(image: int, sample: int) -> Floats:
        return add_noise(batch.pixels[image], float(deviations[image]), options["seed"], sample)

    samples = options["samples"]
    return {ATTRIBUTIONS: sum_gradients(batch, np.full(samples, 1 / samples), noisy)}


def add_noise(pixels: Floats, deviation: float, seed: int, sample: int) -> Floats:
    """Return pixels with the noise of one sample.

    Args:
        pixels: Pixels, float32 of any shape.
        deviation: Standard deviation of the noise.
        seed: Seed of the noise.
        sample: Number of the sample. It selects a child of the seed.

    Returns:
        Noisy pixels, float32 of the same shape. The noise depends on the seed and the sample alone.
    """
    # The seed sequence (seed, sample) would be ambiguous: for seeds of more than 32 bits, two pairs can be equal.
    child = np.random.SeedSequence(seed, spawn_key=(sample,))
    words = child.generate_state(64).astype(np.uint32, copy=False)
    return add_normal_noise(pixels, deviation, words.reshape(4, 16))


MULTI_PASS = MultiPass(_run, lambda batch, options: batch.targets.shape[1] * int(options["samples"]))
