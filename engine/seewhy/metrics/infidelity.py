"""Infidelity (Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations, arXiv:1901.09392, equation 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy.methods.options import Option, Options, choice, integer, number
from seewhy.metrics.base import LOGIT, LOWER, EvaluatedMethod, NotMeasurable, Scope
from seewhy.metrics.baselines import baseline
from seewhy.metrics.completeness import adds_up, no_pixel_values, own_baseline, pixel_values
from seewhy.metrics.evaluated_image import BATCH_SIZE, EvaluatedExplanation, EvaluatedImage
from seewhy.metrics.metric import Metric


def _infidelity(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the mean of (I . a - (y(x) - y(x - I)))^2 over perturbations I, where a is the attribution, y the logit.

    Attributions that are slopes are used as they are. Those that add up to the score, such as input x gradient, are
    divided by x - x' first, where x' is their baseline, or zero; where x = x', they count as 0. Captum's decorator with
    `multiply_by_inputs` does the same. With normalize=yes, the attribution is multiplied by the factor for which the
    mean is smallest, so that methods of different units can be compared.
    """
    image, slopes = explanation.image, _slopes(explanation)
    expected = [np.tensordot(batch.astype(np.float64), slopes, 3) for batch in perturbations(image, options)]
    key = ("infidelity", *(options[name] for name in ("perturbation", "samples", "scale")))
    change, predicted = image.cached(key, lambda: _changes(image, options)), np.concatenate(expected)
    if options["normalize"] == "yes":
        power = float(predicted @ predicted)
        if power == 0:
            raise NotMeasurable("the attribution predicts no change for any perturbation, so it cannot be scaled")
        predicted = predicted * float(predicted @ change) / power
    return float(np.mean((predicted - change) ** 2))


def _slopes(explanation: EvaluatedExplanation) -> NDArray[np.float64]:
    """Return the expected change of the logit for each unit of each pixel, float64 of shape (Cin, H, W)."""
    attribution = pixel_values(explanation).astype(np.float64)
    if not adds_up(explanation.method):
        return attribution
    image = explanation.image
    away = image.pixels.astype(np.float64) - baseline(image, own_baseline(explanation.method, "zero"))
    return np.divide(attribution, away, out=np.zeros_like(away), where=away != 0)


def _changes(image: EvaluatedImage, options: Options) -> NDArray[np.float64]:
    """Return y(x) - y(x - I) for each perturbation, float64 of shape (samples,)."""
    logits = [image.logits_at(image.pixels - batch) for batch in perturbations(image, options)]
    return image.scores(image.logits[None], LOGIT) - image.scores(np.concatenate(logits), LOGIT)


def perturbations(image: EvaluatedImage, options: Options) -> Iterator[Floats]:
    """Yield the perturbations of an image, which are the same for all methods.

    Args:
        image: The image.
        options: Options of the metric.

    Yields:
        Batches of perturbations, float32 of shape (n, Cin, H, W).
    """
    kind, samples = options["perturbation"], options["samples"]
    for first in range(0, samples, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, samples))
        rngs = (image.rng("infidelity", kind, i) for i in numbers)
        yield np.stack([_PERTURBATIONS[kind](image.pixels, options["scale"], rng) for rng in rngs])


def _noise(pixels: Floats, scale: float, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(pixels.shape, np.float32) * np.float32(scale)


def _square(pixels: Floats, scale: float, rng: np.random.Generator) -> Floats:
    """Return the pixels in a random square, and 0 elsewhere, so that x - I is 0 in the square."""
    height, width = pixels.shape[1:]
    side = max(1, round(scale * min(height, width)))
    y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
    result = np.zeros_like(pixels)
    result[:, y : y + side, x : x + side] = pixels[:, y : y + side, x : x + side]
    return result


_PERTURBATIONS: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "noise": _noise,
    "square": _square,
}


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    return no_pixel_values(method)


INFIDELITY = (
    Metric(
        "infidelity",
        "Infidelity",
        "faithfulness",
        LOWER,
        _infidelity,
        (0, None),
        "Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations, equation 1, in logits",
        "samples, for all methods of an image",
        (
            Option("perturbation", "noise", choice(_PERTURBATIONS), "noise, or square for a square set to 0."),
            Option("samples", 50, integer(1, 10_000), "Number of perturbations."),
            Option(
                "scale",
                0.2,
                number(1e-6, 1),
                "Standard deviation of the noise in input space, or side of the square as a share of the image's "
                "shorter side.",
            ),
            Option("normalize", "no", choice(("yes", "no")), "Whether to scale attributions to fit best: yes or no."),
        ),
        is_default=False,
        unsuitable=_unsuitable,
    ),
)
