"""Measures how far the results of a quantised file drift from those of its float32 file.

The maps are compared as Grad-CAM computes them, before upsampling: upsampled maps correlate more, because most of their
pixels are interpolated. Both are maps of the class that the float32 file predicts, so that they answer one question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seewhy._core import cpu_features
from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.cpu_count import usable_cores
from seewhy.contract.quantization import CONFIDENT, Drift
from seewhy.explainer.explainer import Explainer, OneImage
from seewhy.explainer.prediction import probabilities
from seewhy.quantization.speed import measure_speed

_METHOD = "gradcam"
_BATCH = 8
_SPEED_BATCHES = (1, 8)


@dataclass(frozen=True)
class Results:
    """Logits and maps of one file for N images."""

    logits: Floats
    """Scores before softmax or sigmoid, float32 of shape (N, classes)."""
    maps: Floats
    """Low-resolution Grad-CAM maps after ReLU, float32 of shape (N, h, w)."""

    @property
    def predicted(self) -> Integers:
        """Class with the highest logit of each image, int64 of shape (N,)."""
        classes: Integers = self.logits.argmax(axis=1)
        return classes


def measure_drift(
    float32: Explainer,
    int8: Explainer,
    images: Sequence[OneImage] | Floats,
    speed_batches: Sequence[int] = _SPEED_BATCHES,
) -> Drift:
    """Measure the difference between a quantised file and its float32 file.

    Args:
        float32: Explainer of the float32 file.
        int8: Explainer of the quantised file.
        images: N images that calibration did not use, or preprocessed pixels, float32 of shape (N, Cin, H, W).
        speed_batches: Batch sizes whose speed is measured, on all threads of `float32`; empty measures none.

    Returns:
        The drift. Its speed is that of this machine, in its present state.

    Raises:
        ImageError: If an image cannot be read or used.
        MethodError: If Grad-CAM cannot be computed from one of the files.
    """
    expected = results(float32, images)
    drift = compare(expected, results(int8, images, expected.predicted), float32.metadata.score_kind)
    if not speed_batches:
        return drift
    pixels = next(_pixels(float32, images, 1))
    return replace(
        drift,
        speed=measure_speed(float32, int8, pixels, speed_batches, _METHOD),
        threads=float32.threads or usable_cores(),
        cpu_flags=cpu_features(),
    )


def results(explainer: Explainer, images: Sequence[OneImage] | Floats, targets: Integers | None = None) -> Results:
    """Compute logits and low-resolution maps of images.

    Args:
        explainer: Explainer of a model file.
        images: As in `measure_drift`.
        targets: Class to explain for each image, int64 of shape (N,); None is the class that the file predicts.

    Returns:
        The results.
    """
    logits, maps, start = [], [], 0
    for pixels in _pixels(explainer, images, _BATCH):
        stop = start + len(pixels)
        found = explainer.explain(pixels, _METHOD, None if targets is None else targets[start:stop].tolist())
        assert found.maps is not None  # Grad-CAM has maps
        logits.append(found.logits)
        maps.append(np.maximum(found.maps, 0))
        start = stop
    return Results(np.concatenate(logits), np.concatenate(maps))


def compare(float32: Results, int8: Results, score_kind: str) -> Drift:
    """Compute the drift between the results of two files for the same images and classes.

    Args:
        float32: Results of the float32 file.
        int8: Results of the quantised file for the classes that the float32 file predicts.
        score_kind: Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`. With `none`, no image
            counts as confident.

    Returns:
        The drift, without speed.
    """
    found = correlations(float32.maps, int8.maps)
    known = found[~np.isnan(found)]
    agrees = float32.predicted == int8.predicted
    shares = probabilities(float32.logits, score_kind)
    confident = np.zeros(len(agrees), bool) if shares is None else shares.max(axis=1) > CONFIDENT
    logits = float32.logits.astype(np.float64)
    return Drift(
        images=len(agrees),
        constant_maps=len(found) - len(known),
        correlation_median=float(np.median(known)) if len(known) else None,
        correlation_p5=float(np.percentile(known, 5)) if len(known) else None,
        correlation_worst=float(known.min()) if len(known) else None,
        top1_agreement=float(agrees.mean()),
        confident_images=int(confident.sum()),
        top1_agreement_confident=float(agrees[confident].mean()) if confident.any() else None,
        logits_error=float(np.linalg.norm(int8.logits - logits) / (np.linalg.norm(logits) or 1)),
    )


def correlations(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Compute Pearson's correlation of each pair of maps.

    Args:
        first: Maps, float32 of shape (N, h, w).
        second: Maps, float32 of shape (N, h, w).

    Returns:
        Correlations from -1 to 1, float64 of shape (N,). They are NaN where the first map is constant, and 0 where only
        the second one is.
    """
    pair = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second)]
    constant_pair = [np.ptp(maps, axis=1) == 0 for maps in pair]
    constant = np.any(constant_pair, axis=0)
    centred = [maps - maps.mean(axis=1, keepdims=True) for maps in pair]
    # Scaled first, because squares of tiny maps would vanish.
    scaled = [maps / np.where(constant, 1, np.abs(maps).max(axis=1))[:, None] for maps in centred]
    norms = np.prod([np.linalg.norm(maps, axis=1) for maps in scaled], axis=0)
    products = (scaled[0] * scaled[1]).sum(axis=1)
    found: NDArray[np.float64] = np.clip(products / np.where(constant, 1, norms), -1, 1)
    found[constant] = 0
    found[constant_pair[0]] = np.nan
    return found


def _pixels(explainer: Explainer, images: Sequence[OneImage] | Floats, size: int) -> Iterator[Floats]:
    """Yield preprocessed pixels of up to `size` images."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield part if isinstance(part, np.ndarray) else explainer.preprocess(part)
