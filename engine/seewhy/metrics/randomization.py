"""Randomization of the parameters (Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292).

An explanation that stays the same although the model's parameters are random does not explain the model. Section 3
defines the cascading and the independent randomization, and section 4 the rank correlation.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy.explainer.explainer import Explainer
from seewhy.explainer.shuffled_stages import CASCADING, INDEPENDENT, MOST_STAGES, ShuffledStages
from seewhy.methods.float32_files import cannot_shuffle
from seewhy.methods.method import REDUCTIONS
from seewhy.methods.options import Option, Options, choice, integer
from seewhy.metrics.base import LOWER, EvaluatedMethod, Measured, NotMeasurable, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation, EvaluatedImage, reduce_channels
from seewhy.metrics.metric import Metric, not_for_files
from seewhy.metrics.rank_correlation import spearman

# Stages by explainer, so that all images and methods share them. Explainers are dropped with their stages.
_stages: WeakKeyDictionary[Explainer, dict[Hashable, ShuffledStages]] = WeakKeyDictionary()
_lock = threading.Lock()


def _randomization(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the mean rank correlation between the map and the maps of the same class after each stage of shuffling.

    The parameters are shuffled from the output down, in at most `stages` stages: cascading, those of a stage and of all
    stages above it; independent, those of the stage alone. The model as it is does not count as a stage.

    At a stage whose map is constant, or for which the model gives NaN or infinity, there is no rank correlation. It
    counts as 0, since nothing of the map is left, and the record of the image names the stage.

    By default, attributions with channels are added up over them with their signs. The paper compares |value|, too, but
    the size of a gradient also follows the image: under `max-abs`, a plain gradient of a random model still resembles
    that of the trained one.
    """
    image, original = explanation.image, reduce_channels(explanation.attribution, options["reduction"])
    if original.min() == original.max():
        raise NotMeasurable("the map is constant")
    stages = _shuffled(image, options)
    curve, undefined = [], []
    for stage in range(len(stages)):
        try:
            shuffled = _map_at(explanation, stages, stage, options)
            similarity = spearman(original, shuffled)
            reason = "the map is constant" if np.isfinite(shuffled).all() else "the map holds NaN or infinity"
        except NotMeasurable as error:
            similarity, reason = np.nan, str(error)
        if np.isnan(similarity):
            undefined.append({"stage": stage, "reason": reason})
            similarity = 0.0
        curve.append(float(similarity))
    if len(undefined) == len(curve):
        raise NotMeasurable(f"no stage has a map to compare; at the first one, {undefined[0]['reason']}")
    details = {"modules": [list(names) for names in stages.modules], "undefined": undefined}
    return Measured(float(np.mean(curve)), curve, details)


def _map_at(explanation: EvaluatedExplanation, stages: ShuffledStages, stage: int, options: Options) -> Floats:
    """Return the map of the original target at a stage; all methods are explained in one call."""
    image = explanation.image
    key = ("randomization", options["order"], options["stages"], stage)
    try:
        found = image.explained(key, lambda: image.pixels[None], explainer=stages[stage])
    finally:
        stages.release(stage)
    return reduce_channels(found[explanation.method.name][0], options["reduction"])


def _shuffled(image: EvaluatedImage, options: Options) -> ShuffledStages:
    """Return the stages of the image's model, which all images and methods share."""
    key = (options["order"], options["stages"], image.seed)
    with _lock:
        known = _stages.setdefault(image.explainer, {})
        if key not in known:
            known[key] = ShuffledStages(image.explainer, options["order"], options["stages"], image.seed)
        return known[key]


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    """Return why the metric does not apply: maps of files do not change, and older model files list no parameters."""
    quantization = scope.metadata.quantization
    if quantization is not None:
        return cannot_shuffle(quantization)
    if scope.metadata.parameters:
        return not_for_files(method, scope, options)
    return (
        "the model file does not list its parameters, so they cannot be shuffled; export the network again with this "
        "version of seewhy"
    )


RANDOMIZATION = (
    Metric(
        "randomization",
        "Randomization",
        "randomization",
        LOWER,
        _randomization,
        (-1, 1),
        "Adebayo et al. 2018, Sanity checks for saliency maps, sections 3 and 4: rank correlation with the map of the "
        "model whose parameters are shuffled; 1 = the method ignores the parameters",
        "1 explanation per stage",
        (
            Option(
                "order",
                CASCADING,
                choice((CASCADING, INDEPENDENT)),
                "cascading: shuffle a stage and all above it; independent: a stage alone.",
            ),
            Option("stages", MOST_STAGES, integer(1, MOST_STAGES), "Maximum number of stages."),
            Option("reduction", "sum", choice(REDUCTIONS), "Reduction of the channels: signed sum, or max of |value|."),
        ),
        is_default=False,
        unsuitable=_unsuitable,
    ),
)
