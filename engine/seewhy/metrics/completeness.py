"""Completeness: how far attributions are from adding up to the score that they explain."""

from __future__ import annotations

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy._shared.text import brief
from seewhy.methods.options import Options
from seewhy.metrics.base import LOGIT, LOWER, EvaluatedMethod, NotMeasurable, Scope
from seewhy.metrics.baselines import NAMES, baseline_logits, baseline_option
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import Metric

_NO_UNIT = "the maps have no unit, so they cannot be compared with a change of the score"


def _completeness(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return |sum of the attributions - (y(x) - y(x'))|, where y is the logit and x' the baseline.

    A method with an option `baseline` of its own, such as integrated gradients, is measured against that one.
    """
    image = explanation.image
    name = own_baseline(explanation.method, options["baseline"])
    logits = np.concatenate([image.logits[None], baseline_logits(image, name)])
    at_image, at_baseline = image.scores(logits, LOGIT)
    return float(abs(pixel_values(explanation).sum(dtype=np.float64) - (at_image - at_baseline)))


def own_baseline(method: EvaluatedMethod, otherwise: str) -> str:
    """Return the name of the baseline among a method's own options, or another one if it has none.

    Args:
        method: The method.
        otherwise: Name of a baseline.

    Returns:
        The name.

    Raises:
        NotMeasurable: If the method has a baseline that is none of `seewhy.metrics.baselines`.
    """
    own = otherwise if method.request is None else method.request.options.get("baseline", otherwise)
    if own not in NAMES:
        raise NotMeasurable(f"the method's baseline is {brief(own)}, which is none of {', '.join(NAMES)}")
    return str(own)


def adds_up(method: EvaluatedMethod) -> bool:
    """Return whether attributions are shares of a score, such as input x gradient, rather than slopes.

    The method itself decides, not the reduction that the user chose for its maps. Maps of other tools count as shares.
    """
    if method.request is None:
        return method.has_files
    return not method.is_map and method.request.method.reduction == "sum"


def pixel_values(explanation: EvaluatedExplanation) -> Floats:
    """Return the attributions (Cin, H, W); raises `NotMeasurable` if a file of another tool holds a map."""
    if explanation.attribution.ndim == 2:
        raise NotMeasurable(_NO_UNIT)
    return explanation.attribution


def no_pixel_values(method: EvaluatedMethod) -> str | None:
    """Return why a metric of attributions for each pixel and channel does not apply to a map."""
    return _NO_UNIT if method.is_map else None


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    if method.is_map or adds_up(method):
        return no_pixel_values(method)
    return "the attributions are sensitivities, which do not add up to a score"


COMPLETENESS = (
    Metric(
        "completeness",
        "Completeness error",
        "faithfulness",
        LOWER,
        _completeness,
        (0, None),
        "Sundararajan et al. 2017, Axiomatic attribution for deep networks, section 3, in logits",
        "1 for all methods with the same baseline",
        (baseline_option("zero"),),
        unsuitable=_unsuitable,
    ),
)
