"""Score-CAM (Wang et al. 2020, arXiv:1910.01279, section 3 and algorithm 1)."""

from __future__ import annotations

import numpy as np

from seewhy._core import minmax, multiply_by_map, upsample
from seewhy._shared.arrays import Floats, softmax
from seewhy.contract.constants import ACTIVATIONS, IMAGES, LOGITS
from seewhy.methods.base import CHANNEL_WEIGHTS
from seewhy.methods.multi_pass import Batch, MultiPass, Run
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs


def _run(batch: Batch, options: Options) -> Outputs:
    """Return the weights w_k = softmax over k of y(x * H_k), where H_k is A_k upsampled and then scaled to [0, 1].

    The paper's score is the increase y(x * H_k) - y(x') over a baseline x'. The softmax cancels terms that are the same
    for all channels, so no baseline is needed.

    A constant A_k cannot mask a part of the image. It needs no run, does not enter the softmax, and has weight 0. One
    run of a masked image serves all classes.
    """
    activations = batch.values[ACTIVATIONS]
    n, channels = activations.shape[:2]
    each = batch.targets.shape[1]
    flat = activations.reshape(n * channels, -1)
    varying = np.flatnonzero(flat.min(axis=1) < flat.max(axis=1))
    batch.counter.add(n * channels - len(varying))
    scores = np.full((each, n * channels), -np.inf)
    maps = activations.reshape(n * channels, *activations.shape[2:])
    size = batch.context.height, batch.context.width

    def logits(part: slice, run: Run) -> Floats:
        images = varying[part] // channels
        masks = minmax(upsample(maps[varying[part]], *size, threads=1), threads=1)
        return run({IMAGES: multiply_by_map(batch.pixels[images], masks, threads=1)}, images)

    def keep(part: slice, found: Floats) -> None:
        rows = varying[part]
        scores[:, rows] = np.take_along_axis(found, batch.targets[rows // channels], axis=1).T
        batch.counter.add(len(rows))

    batch.each(LOGITS, (IMAGES,), len(varying), logits, keep)
    return {CHANNEL_WEIGHTS: softmax(scores.reshape(each, n, channels)).astype(np.float32)}


MULTI_PASS = MultiPass(_run, lambda batch, options: batch.values[ACTIVATIONS].shape[1], outputs=(ACTIVATIONS,))
