"""Average drop, increase and average gain: the probability of the image that a heatmap masks.

The masked image is baseline + heatmap * (image - baseline), where the heatmap is the map scaled to [0, 1]. One pass
serves all three. They are shares in [0, 1], not percentages, of the class that is explained.
"""

from __future__ import annotations

from seewhy.methods.options import Option, Options, choice
from seewhy.metrics.base import HIGHER, LOWER, PROBABILITY, EvaluatedMethod, NotMeasurable, Scope
from seewhy.metrics.baselines import baseline, baseline_option
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import Metric, only_with_probabilities

_BASELINE = baseline_option("zero")


def _average_drop(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return max(0, p - q) / p, where p is the probability of the image and q that of the masked image."""
    whole, masked = _probabilities(explanation, options)
    return _share(max(0.0, whole - masked), whole, options, "the probability of the image is 0, and cannot fall")


def _increase(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return 1 if q > p, else 0: its mean is the share of images whose probability increases."""
    whole, masked = _probabilities(explanation, options)
    return float(masked > whole)


def _average_gain(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return max(0, q - p) / (1 - p)."""
    whole, masked = _probabilities(explanation, options)
    return _share(max(0.0, masked - whole), 1 - whole, options, "the probability of the image is 1, and cannot rise")


def _share(change: float, possible: float, options: Options, reason: str) -> float:
    if options["relative"] == "no":
        return change
    if possible <= 0:
        raise NotMeasurable(reason)
    return change / possible


def _probabilities(explanation: EvaluatedExplanation, options: Options) -> tuple[float, float]:
    """Return the probability of the image and that of the masked image."""
    image, heatmap, name = explanation.image, explanation.heatmap, options["baseline"]

    def masked() -> float:
        start = baseline(image, name)
        logits = image.logits_at((start + heatmap * (image.pixels - start))[None])
        return float(image.scores(logits, PROBABILITY)[0])

    whole = float(image.scores(image.logits[None], PROBABILITY)[0])
    return whole, image.cached(("masked", explanation.method.name, name), masked)


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    reason = only_with_probabilities(method, scope, options)
    return reason and f"{reason}; a share of a logit has no meaning, because logits have either sign"


def _relative(divisor: str, otherwise: str) -> Option:
    meaning = f"Whether to divide by {divisor}, as the paper does: yes or no{otherwise}."
    return Option("relative", "yes", choice(("yes", "no")), meaning)


_COST = "1 for all of average-drop, increase and average-gain"
MASKED_IMAGE = (
    Metric(
        "average-drop",
        "Average drop",
        "faithfulness",
        LOWER,
        _average_drop,
        (0, 1),
        "Chattopadhay et al. 2018, Grad-CAM++, section 4.1",
        _COST,
        (_BASELINE, _relative("the probability of the image", " (as pytorch-grad-cam's DropInConfidence)")),
        unsuitable=_unsuitable,
    ),
    Metric(
        "increase",
        "Increase in confidence",
        "faithfulness",
        HIGHER,
        _increase,
        (0, 1),
        "Chattopadhay et al. 2018, Grad-CAM++, section 4.1",
        _COST,
        (_BASELINE,),
        unsuitable=_unsuitable,
    ),
    Metric(
        "average-gain",
        "Average gain",
        "faithfulness",
        HIGHER,
        _average_gain,
        (0, 1),
        "Zhang et al. 2023, Opti-CAM, section 4.1",
        _COST,
        (_BASELINE, _relative("1 - the probability of the image", "")),
        unsuitable=_unsuitable,
    ),
)
