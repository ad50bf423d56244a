"""Metrics of robustness: how far an explanation moves if the image hardly changes.

Both draw noise from the seed and the image, so that all methods explain the same noisy images.
"""

from __future__ import annotations

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy.methods.options import Option, Options, integer, number
from seewhy.metrics.base import LOWER, Measured, NotMeasurable
from seewhy.metrics.evaluated_image import EvaluatedExplanation, EvaluatedImage
from seewhy.metrics.metric import Metric, not_for_files
from seewhy.metrics.rank_correlation import spearman


def _stability(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the mean of 1 - rank correlation between the map and the maps of noisy copies of the image.

    The noise is Gaussian with the standard deviation `noise` * (max x - min x), where x are the preprocessed pixels.
    Copies with another prediction do not count: there, a different map may be right.
    """
    image, first = explanation.image, explanation.varied_map
    key = ("noise", options["noise"], options["samples"])
    kept = image.cached(key, lambda: _same_prediction(image, _noisy(image, options["noise"], options["samples"])))
    if not len(kept):
        raise NotMeasurable("the noise changes the prediction of every sample")
    maps = explanation.maps_of(image.explained(key, lambda: kept))
    if any(one.min() == one.max() for one in maps):
        raise NotMeasurable("the map of a noisy image is constant")
    distances = [1 - spearman(first, one) for one in maps]
    return Measured(float(np.mean(distances)), details={"changed": options["samples"] - len(kept)})


def _noisy(image: EvaluatedImage, noise: float, samples: int) -> Floats:
    """Return noisy copies of the image, of shape (samples, Cin, H, W)."""
    span = image.pixels.max() - image.pixels.min()
    if span == 0:
        raise NotMeasurable("the image is constant")
    drawn = image.rng("stability").standard_normal((samples, *image.pixels.shape), np.float32)
    result: Floats = image.pixels + np.float32(noise) * span * drawn
    return result


def _same_prediction(image: EvaluatedImage, pixels: Floats) -> Floats:
    """Return the images with the prediction of the original: the class and, for sigmoids, the target's yes or no."""
    logits = image.logits_at(pixels)
    same = logits.argmax(axis=1) == image.logits.argmax()
    if image.metadata.score_kind == "sigmoid":
        same &= (logits[:, image.target] > 0) == (image.logits[image.target] > 0)
    kept: Floats = pixels[same]
    return kept


def perturbations(image: EvaluatedImage, radius: float, samples: int) -> Floats:
    """Draw changes of the image from the cube of `max-sensitivity`.

    Args:
        image: The image.
        radius: Largest change of a preprocessed value.
        samples: Number of changes.

    Returns:
        Changes, float32 of shape (samples, Cin, H, W), uniform in [-radius, radius].
    """
    drawn = image.rng("max-sensitivity").uniform(-radius, radius, (samples, *image.pixels.shape))
    result: Floats = drawn.astype(np.float32)
    return result


def _max_sensitivity(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the largest ||e(x + d) - e(x)|| / ||e(x)||, where e are the raw attributions and d is drawn.

    Norms are Euclidean over all values. d is uniform in the cube |d| <= radius around the preprocessed pixels.
    """
    image, radius, samples = explanation.image, options["radius"], options["samples"]
    original = explanation.attribution.astype(np.float64)
    size = np.linalg.norm(original)
    if size == 0:
        raise NotMeasurable("the attributions are zero everywhere")
    found = image.explained(
        ("perturbed", radius, samples), lambda: image.pixels + perturbations(image, radius, samples)
    )
    changes = found[explanation.method.name] - original
    return float(np.linalg.norm(changes.reshape(samples, -1), axis=1).max() / size)


ROBUSTNESS = (
    Metric(
        "stability",
        "Change under noise",
        "robustness",
        LOWER,
        _stability,
        (0, 2),
        "mean of 1 - Spearman's rank correlation, which Ghorbani et al. 2019, Interpretation of neural networks is "
        "fragile, section 3 measures under changes that keep the prediction",
        "`samples` explanations and as many passes",
        options=(
            Option("noise", 0.01, number(0.0001, 1), "Standard deviation of the noise, as a share of max x - min x."),
            Option("samples", 4, integer(1, 1000), "Number of noisy images."),
        ),
        unsuitable=not_for_files,
    ),
    Metric(
        "max-sensitivity",
        "Max-sensitivity",
        "robustness",
        LOWER,
        _max_sensitivity,
        (0, None),
        "Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations (max-sensitivity), divided by the norm "
        "of the attributions. Radius and samples are Captum's; the radius of Quantus is 0.2",
        "`samples` explanations",
        options=(
            Option("radius", 0.02, number(0.00001, 100), "Largest change of a preprocessed value."),
            Option("samples", 10, integer(1, 10000), "Number of changed images."),
        ),
        is_default=False,
        unsuitable=not_for_files,
    ),
)
