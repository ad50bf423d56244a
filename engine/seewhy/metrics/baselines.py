"""Baselines: the images that take the place of removed pixels.

| name | image | used by |
| --- | --- | --- |
| `zero` | 0 in input space, in most networks a mean grey | RISE's deletion, torch-cam, Xplique |
| `black` | black pixels | openvino_xai |
| `grey`, `white` | grey and white pixels | |
| `mean` | the image's mean colour | Quantus on request, with one value for all channels |
| `blur` | the image, blurred | RISE's insertion |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy.methods.built_in_options import BASELINES as COLOURS
from seewhy.methods.options import Option, choice
from seewhy.metrics.evaluated_image import EvaluatedImage

_KERNEL, _SIGMA, _REACH = 11, 5, 20


def baseline(image: EvaluatedImage, name: str) -> Floats:
    """Return a baseline for an image, computed once for all methods and metrics.

    Args:
        image: The image.
        name: Name of a baseline, one of `NAMES`.

    Returns:
        Preprocessed pixels, float32 of shape (Cin, H, W).

    Raises:
        NotMeasurable: If the baseline is a colour and the model file does not record how pixels are normalised.
    """
    return image.cached(("baseline", name), lambda: _make(image, name))


def baseline_logits(image: EvaluatedImage, name: str) -> Floats:
    """Return the model's logits for a baseline, float32 of shape (1, classes), from one pass for all methods."""
    return image.cached(("baseline logits", name), lambda: image.logits_at(baseline(image, name)[None]))


def baseline_option(default: str, names: tuple[str, ...] | None = None) -> Option:
    """Return the option `baseline` of a metric."""
    chosen = names or NAMES
    meaning = f"Image that takes the place of removed pixels: {', '.join(chosen[:-1])} or {chosen[-1]}."
    return Option("baseline", default, choice(chosen), meaning)


def _make(image: EvaluatedImage, name: str) -> Floats:
    if name in _MADE:
        return _MADE[name](image.pixels)
    value = COLOURS[name]
    colour = np.float32(0) if value is None else image.normalised(value)
    return np.ascontiguousarray(np.broadcast_to(colour, image.pixels.shape), np.float32)


def _mean_colour(pixels: Floats) -> Floats:
    means = pixels.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    return np.ascontiguousarray(np.broadcast_to(means, pixels.shape), np.float32)


def _blurred(pixels: Floats) -> Floats:
    """Return the image blurred as RISE's code does: 11 x 11 pixels, and zeros in input space around the image."""
    reach = _KERNEL // 2
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)))
    height, width = pixels.shape[1:]
    rows = sum(weight * padded[:, i : i + height] for i, weight in enumerate(gaussian_kernel()))
    return np.asarray(sum(weight * rows[:, :, i : i + width] for i, weight in enumerate(gaussian_kernel())), np.float32)


def gaussian_kernel() -> NDArray[np.float64]:
    """Return the weights of RISE's blur along one axis, float64 of shape (11,), whose sum is 1.

    They are a Gaussian of standard deviation 5, cut off at 4 standard deviations. RISE filters a single pixel in an
    image of 11 x 11 pixels, which SciPy reflects at its edges. So the tails outside come back inside.
    """
    offsets = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-((offsets / _SIGMA) ** 2) / 2)
    places = (offsets + _KERNEL // 2) % (2 * _KERNEL)
    reflected = np.minimum(places, 2 * _KERNEL - 1 - places)
    kernel: NDArray[np.float64] = np.bincount(reflected, weights) / weights.sum()
    return kernel


_MADE: dict[str, Callable[[Floats], Floats]] = {"mean": _mean_colour, "blur": _blurred}
NAMES = (*COLOURS, *_MADE)
"""Names of the baselines."""
