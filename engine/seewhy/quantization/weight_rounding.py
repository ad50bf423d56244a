"""Round weights to 8 bits so that the outputs of their layer change least, by GPTQ.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
algorithm 1. Plain rounding ignores that the inputs of a layer are correlated. GPTQ rounds the weights of an output
channel one after the other, and after each one changes those that are left so that they compensate its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.quantization.calibration import Moments

LARGEST = 127
"""Largest absolute value of a stored weight. -128 is left out, so that the range is symmetric."""
# Added to the diagonal of the moments, as a share of their mean, as in the paper.
_DAMPING = 0.01
# Columns whose errors are passed on to all later columns together.
_BLOCK = 128


@dataclass(frozen=True)
class RoundedWeights:
    """Weights of a layer in 8 bits."""

    stored: NDArray[np.int8]
    """Stored values of the weights' shape, (O, I, ...)."""
    scale: NDArray[np.float32]
    """Step of each output channel, of shape (O,)."""
    shift: NDArray[np.float64]
    """Change of the mean of each output channel by rounding, of shape (O,). The bias has to take it off."""

    @property
    def values(self) -> NDArray[np.float32]:
        """Weights that the stored values stand for."""
        return self.stored * self.scale.reshape(-1, *[1] * (self.stored.ndim - 1))


def round_weights(
    weights: NDArray[np.float32], moments: Moments, smallest: NDArray[np.float32] | float = 0
) -> RoundedWeights:
    """Round the weights of a layer.

    Args:
        weights: Weights, float32 of shape (O, I, ...), with K values for each of the O output channels.
        moments: Moments of the layer's inputs.
        smallest: Smallest allowed scale of each output channel, float32 of shape (O,), or of all.

    Returns:
        The rounded weights. The scale of a channel is that of its largest weight, or the smallest allowed one.
    """
    groups, count = moments.mean.shape
    largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    scale = np.maximum(np.where(largest > 0, largest, 1) / LARGEST, smallest).astype(np.float32)
    exact = weights.reshape(groups, -1, count) / scale.reshape(groups, -1, 1).astype(np.float64)
    # Depthwise layers have many groups of few weights, which are computed together.
    together = max(1, 2**20 // count**2)
    parts = [slice(i, i + together) for i in range(0, groups, together)]
    stored = np.concatenate([_round(exact[part], moments.covariance[part]) for part in parts])
    shift = np.einsum("gok,gk->go", stored - exact, moments.mean).ravel() * scale
    return RoundedWeights(stored.reshape(weights.shape).astype(np.int8), scale, shift)


def _round(exact: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round weights in units of their scale, of shape (groups, O / groups, K)."""
    count = exact.shape[2]
    # Inputs with large moments first, as long as many weights are left that compensate the errors.
    order = np.argsort(-np.einsum("gkk->k", moments), kind="stable")
    rows, moments = exact[:, :, order], moments[:, order][:, :, order]
    mean = np.einsum("gkk->g", moments) / count
    damped = moments + np.where(mean > 0, _DAMPING * mean, 1)[:, None, None] * np.eye(count)
    # Upper factor U of the inverse: inverse(damped) = transpose(U) U.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    stored = np.empty_like(rows)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        errors = np.empty((*rows.shape[:2], stop - start))
        for i in range(start, stop):
            stored[:, :, i] = np.clip(np.rint(rows[:, :, i]), -LARGEST, LARGEST)
            errors[:, :, i - start] = (rows[:, :, i] - stored[:, :, i]) / upper[:, i, i, None]
            rows[:, :, i:stop] -= errors[:, :, i - start, None] * upper[:, None, i, i:stop]
        rows[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return stored[:, :, np.argsort(order)]
