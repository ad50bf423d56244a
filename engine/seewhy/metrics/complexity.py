"""Metrics of complexity: on how few pixels a map concentrates.

All read |map|, and need no pass of the graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seewhy.methods.options import Option, Options, number
from seewhy.metrics.base import HIGHER, LOWER, NotMeasurable
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import Metric


def _strengths(explanation: EvaluatedExplanation) -> NDArray[np.float64]:
    """Return |map| in ascending order, divided by its sum."""
    strengths = np.sort(np.abs(explanation.map.ravel().astype(np.float64)))
    total = strengths.sum()
    if total == 0:
        raise NotMeasurable("the map is zero everywhere")
    shares: NDArray[np.float64] = strengths / total
    return shares


def _sparseness(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the Gini index: 0 for a constant map, nearly 1 if a single pixel holds everything."""
    shares = _strengths(explanation)
    count = len(shares)
    ranks = np.arange(1, count + 1)
    return float(((2 * ranks - count - 1) * shares).sum() / count)


def _entropy(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return -sum of p ln p, where p is each pixel's share of the map, in nats."""
    shares = _strengths(explanation)
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _top_energy(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the share of the map that lies in its strongest pixels."""
    shares = _strengths(explanation)
    count = max(1, round(options["share"] * len(shares)))
    return float(shares[-count:].sum())


COMPLEXITY = (
    Metric(
        "sparseness",
        "Sparseness",
        "complexity",
        HIGHER,
        _sparseness,
        (0, 1),
        "Chalasani et al. 2020, Concise explanations of neural networks using adversarial training, section 5 (Gini "
        "index)",
        "none",
    ),
    Metric(
        "entropy",
        "Entropy",
        "complexity",
        LOWER,
        _entropy,
        (0, None),
        "Bhatt et al. 2020, Evaluating and aggregating feature-based model explanations, definition 4",
        "none",
    ),
    Metric(
        "top-energy",
        "Energy of the top pixels",
        "complexity",
        HIGHER,
        _top_energy,
        (0, 1),
        "share of |map| in its strongest pixels",
        "none",
        options=(Option("share", 0.05, number(0, 1), "Share of the pixels that count as the strongest."),),
    ),
)
