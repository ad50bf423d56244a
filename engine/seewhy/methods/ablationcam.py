"""Ablation-CAM (Desai and Ramaswamy, WACV 2020, equations 2 and 3)."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy._core import channel_means
from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, IMAGES, LOGITS, TARGETS
from seewhy.methods.base import CHANNEL_WEIGHTS
from seewhy.methods.multi_pass import Batch, MultiPass, Run
from seewhy.methods.options import Options
from seewhy.runtime.model_file import repeat_reason
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """Return the weights w_k = (y - y_k) / |y|, where y_k is the logit after A_k has been replaced by zeros.

    The paper divides by y, which is the same if y is positive. If y is negative, dividing by y would flip the sign of
    every weight, and the map would show evidence against the class. With |y|, a channel whose removal lowers the logit
    always counts as evidence for the class. The division only scales the map, and is skipped if y is 0.
    """
    has_linear_head = CLASS_WEIGHTS in batch.runs.model.outputs
    y, losses = _losses_of_linear_head(batch) if has_linear_head else _losses_by_removal(batch)
    losses /= np.where(y == 0, 1, np.abs(y))[..., None]
    return {CHANNEL_WEIGHTS: losses.astype(np.float32)}


def _losses_of_linear_head(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return y (K,n) and the losses y - y_k (K,n,C) of a network that ends in average pooling and one linear layer.

    There y = b + sum_k w_k mean(A_k), so removing A_k lowers y by w_k mean(A_k). No run is needed for a channel.
    """
    n, channels = batch.values[ACTIVATIONS].shape[:2]
    each = batch.targets.shape[1]
    weights = np.empty((each, n, channels))
    images = np.tile(np.arange(n), each)
    targets = np.ascontiguousarray(batch.targets.T)

    def rows(part: slice, run: Run) -> Floats:
        return run({ACTIVATIONS: batch.values[ACTIVATIONS][images[part]], TARGETS: targets.ravel()[part]}, images[part])

    def keep(part: slice, found: Floats) -> None:
        weights.reshape(-1, channels)[part] = found

    batch.each(CLASS_WEIGHTS, (ACTIVATIONS, TARGETS), n * each, rows, keep)
    batch.counter.add(n * channels)
    y = np.take_along_axis(batch.values[LOGITS], batch.targets, axis=1).T.astype(np.float64)
    return y, weights * channel_means(batch.values[ACTIVATIONS], batch.context.threads)


def _losses_by_removal(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return y (K,n) and the losses y - y_k (K,n,C), from one run of the head for each channel.

    One run without a channel serves all classes. A channel of zeros needs no run and has weight 0. If other paths of
    the network bypass the target layer, they get the unchanged images.
    """
    activations = batch.values[ACTIVATIONS]
    n, channels = activations.shape[:2]
    active = np.flatnonzero(activations.reshape(n * channels, -1).any(axis=1))
    batch.counter.add(n * channels - len(active))
    # The losses are small differences of logits, so y comes from the same runs, in which no channel is removed.
    images = np.concatenate([np.arange(n), active // channels])
    removed = active % channels
    scores = np.empty((len(images), batch.targets.shape[1]))
    given = (ACTIVATIONS,) if repeat_reason(batch.runs.model) is None else (ACTIVATIONS, IMAGES)
    copies = _Copies(activations)

    def logits(part: slice, run: Run) -> Floats:
        rows = np.arange(max(part.start, n), part.stop)
        places = rows - part.start, removed[rows - n]
        ablated = copies.of(images[part])
        ablated[places] = 0
        feeds = {ACTIVATIONS: ablated}
        if IMAGES in given:
            feeds[IMAGES] = batch.pixels[images[part]]
        try:
            return run(feeds, images[part])
        finally:
            ablated[places] = activations[images[rows], removed[rows - n]]

    def keep(part: slice, found: Floats) -> None:
        scores[part] = np.take_along_axis(found, batch.targets[images[part]], axis=1)
        batch.counter.add(max(0, part.stop - max(part.start, n)))

    batch.each(LOGITS, given, len(images), logits, keep)
    losses = np.zeros((scores.shape[1], n, channels))
    losses[:, images[n:], removed] = (scores[images[n:]] - scores[n:]).T
    return scores[:n].T, losses


class _Copies(threading.local):
    """Copies of activations that each thread keeps, because copying them may take as long as the run of a head."""

    def __init__(self, activations: Floats) -> None:
        self._activations = activations
        self._images: Integers = np.zeros(0, np.int64)
        self._copies: NDArray[Any] = activations[:0]

    def of(self, images: Integers) -> Floats:
        """Return the activations (m,C,h,w) of images. The caller may change them if it restores them."""
        count = len(images)
        if len(self._images) < count or not np.array_equal(self._images[:count], images):
            self._images, self._copies = images, self._activations[images]
        return self._copies[:count]


MULTI_PASS = MultiPass(_run, lambda batch, options: batch.values[ACTIVATIONS].shape[1], outputs=(ACTIVATIONS,))
