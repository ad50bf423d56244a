"""ROAD, remove and debias (Rong et al. 2022, A consistent and efficient evaluation strategy, arXiv:2202.00449)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats, Integers
from seewhy.methods.options import Option, Options, choice, integer, number
from seewhy.metrics.base import HIGHER, Measured
from seewhy.metrics.evaluated_image import BATCH_SIZE, EvaluatedExplanation
from seewhy.metrics.imputation import impute
from seewhy.metrics.metric import Metric
from seewhy.metrics.scores import SCORE, needs_score, resolve_score

_ORDERS = {"combined": ("lerf", "morf"), "morf": ("morf",), "lerf": ("lerf",)}


def _road(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return how much more the score falls if the most relevant pixels are removed than the least relevant ones.

    Removed pixels are imputed from their neighbours, with noise (section 4.2). With order=combined, the value is
    (LeRF - MoRF) / 2, where LeRF and MoRF are the mean scores over all shares of removed pixels, least or most relevant
    first; this is pytorch-grad-cam's ROADCombined. With order=lerf, it is the mean change of the score, LeRF - y(x);
    with order=morf, the mean fall y(x) - MoRF. So higher is better for each, and combined is the mean of the other two.

    Shares of pixels are counted in the ranking, not cut off at percentiles of the map: pixels of equal value would all
    be removed, or none. The noise at a pixel is the same for all methods and shares.
    """
    image, ranking = explanation.image, explanation.ranking()
    count, score = len(ranking), resolve_score(options["score"], explanation.image.metadata)
    removed = np.arange(1, options["steps"] + 1) * count // (options["steps"] + 1)
    noise = image.rng("road").standard_normal(image.pixels.shape, np.float32) * np.float32(options["noise"])
    whole = float(image.scores(image.logits[None], score)[0])
    changes, curves = [], {}
    for order in _ORDERS[options["order"]]:
        first = ranking if order == "morf" else ranking[::-1]
        images = [_without(image.pixels, first[:number], noise) for number in removed.tolist()]
        batches = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
        curve = image.scores(np.concatenate([image.logits_at(np.stack(batch)) for batch in batches]), score)
        changes.append(float(np.mean(curve - whole)) * (-1 if order == "morf" else 1))
        curves[order] = curve.tolist()
    return Measured(float(np.mean(changes)), details={"curves": curves})


def _without(pixels: Floats, removed: Integers, noise: Floats) -> Floats:
    """Return an image whose removed pixels are imputed, with noise."""
    missing: NDArray[np.bool_] = np.zeros(pixels.shape[1:], bool)
    missing.ravel()[removed] = True
    result: Floats = np.where(missing, impute(pixels, missing) + noise, pixels)
    return result


ROAD = (
    Metric(
        "road",
        "ROAD",
        "faithfulness",
        HIGHER,
        _road,
        (None, None),
        "Rong et al. 2022, A consistent and efficient evaluation strategy for attribution methods, section 4.2; "
        "order=combined in [-0.5, 0.5] for probabilities",
        "2 x steps, and as many linear systems; half of both for a single order",
        (
            Option(
                "order",
                "combined",
                choice(_ORDERS),
                "Pixels to remove first: morf, the most relevant; lerf, the least relevant; or combined for both.",
            ),
            Option("steps", 9, integer(1, 99), "Number of shares of removed pixels; 9 for 10 %, 20 % ... 90 %."),
            Option("noise", 0.01, number(0, 1), "Standard deviation of the noise in input space on imputed pixels."),
            SCORE,
        ),
        is_default=False,
        unsuitable=needs_score,
    ),
)
