"""A metric of the report's claim about noise: how much a map changes from pixel to pixel."""

from __future__ import annotations

import numpy as np

import seewhy
from seewhy.methods.options import Options
from seewhy.metrics.evaluated_image import EvaluatedExplanation


def _roughness(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the mean |difference| of neighbouring pixels, divided by the mean |difference| of random pairs.

    It is 1 for noise that is independent from pixel to pixel, and near 0 for a smooth map.
    """
    values = explanation.varied_map.astype(np.float64)
    neighbours = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    # The mean |difference| of all pairs, from the sorted values.
    ordered = np.sort(values.ravel())
    count = len(ordered)
    pairs = 2 * ((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * (count - 1))
    return float(neighbours.mean() / pairs)


ROUGHNESS = seewhy.Metric(
    "roughness",
    "Roughness",
    "complexity",
    "lower",
    _roughness,
    (0, None),
    "mean |difference| of neighbouring pixels, relative to random pairs of pixels",
    "none",
)
