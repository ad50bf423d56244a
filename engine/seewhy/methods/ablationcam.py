"""Ablation-CAM (Desai and Ramaswamy, WACV 2020, equations 2 and 3)."""

from __future__ import annotations

import numpy as np

from seewhy.contract.constants import ACTIVATIONS
from seewhy.methods.base import CHANNEL_WEIGHTS
from seewhy.methods.multi_pass import Batch, MultiPass
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """Return the weights w_k = (y - y_k) / |y|, where y_k is the logit after A_k has been replaced by zeros.

    The paper divides by y, which is the same if y is positive. If y is negative, dividing by y would flip the sign of
    every weight, and the map would show evidence against the class. With |y|, a channel whose removal lowers the logit
    always counts as evidence for the class. The division only scales the map, and is skipped if y is 0.

    One run without a channel serves all classes. A channel of zeros needs no run and has weight 0.
    """
    activations = batch.values[ACTIVATIONS]
    n, channels = activations.shape[:2]
    each = batch.targets.shape[1]
    all_images = np.arange(n)
    # The weights are small differences of logits, so both logits must come from the same graph.
    logits = [batch.logits_from_activations(activations[part], all_images[part]) for part in batch.run_slices(n)]
    y = np.take_along_axis(np.concatenate(logits), batch.targets, axis=1).astype(np.float64)  # (n,K)
    active = np.flatnonzero(activations.reshape(n * channels, -1).any(axis=1))
    batch.counter.add(n * channels - len(active))
    weights = np.zeros((each, n, channels))
    for part in batch.run_slices(len(active)):
        images, removed = np.divmod(active[part], channels)
        ablated = activations[images]
        ablated[np.arange(len(images)), removed] = 0
        ablated_logits = batch.logits_from_activations(ablated, images)
        loss = y[images] - np.take_along_axis(ablated_logits, batch.targets[images], axis=1)
        weights[:, images, removed] = loss.T
        batch.counter.add(len(images))
    weights /= np.where(y == 0, 1, np.abs(y)).T[:, :, None]
    return {CHANNEL_WEIGHTS: weights.astype(np.float32)}


MULTI_PASS = MultiPass(_run, lambda batch, options: batch.values[ACTIVATIONS].shape[1], outputs=(ACTIVATIONS,))
