"""Ablation-CAM (Desai and Ramaswamy, WACV 2020, equations 2 and 3)."""

from __future__ import annotations

import numpy as np

from seewhy.contract.constants import ACTIVATIONS
from seewhy.methods.base import CHANNEL_WEIGHTS
from seewhy.methods.multi_pass import Batch, MultiPass
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """w_k = (y - y_k) / |y|, y_k being the logit where A_k is replaced by zeros.

    The paper divides by y. That turns every weight's sign round where y is negative, so that the map would show what
    speaks against the class; with |y| a channel whose loss lowers the logit always counts for the class, and where y
    is positive the two are the same. The division only scales a map, and is left out where y is 0. One run without a
    channel serves all classes; a channel of zeros needs none, and has weight 0.
    """
    activations = batch.values[ACTIVATIONS]
    n, channels = activations.shape[:2]
    each = batch.targets.shape[1]
    everything = np.arange(n)
    # Differences of few units in the last place count here, so both logits come from the same graph.
    whole = np.concatenate([batch.logits_behind(activations[part], everything[part]) for part in batch.run_slices(n)])
    y = np.take_along_axis(whole, batch.targets, axis=1).astype(np.float64)  # (n,K)
    active = np.flatnonzero(activations.reshape(n * channels, -1).any(axis=1))
    batch.counter.add(n * channels - len(active))
    weights = np.zeros((each, n, channels))
    for part in batch.run_slices(len(active)):
        images, removed = np.divmod(active[part], channels)
        ablated = activations[images]
        ablated[np.arange(len(images)), removed] = 0
        logits = batch.logits_behind(ablated, images)
        lost = y[images] - np.take_along_axis(logits, batch.targets[images], axis=1)
        weights[:, images, removed] = lost.T
        batch.counter.add(len(images))
    weights /= np.where(y == 0, 1, np.abs(y)).T[:, :, None]
    return {CHANNEL_WEIGHTS: weights.astype(np.float32)}


PASSES = MultiPass(_run, lambda batch, options: batch.values[ACTIVATIONS].shape[1], outputs=(ACTIVATIONS,))
