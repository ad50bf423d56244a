"""Class sensitivity: whether a method's map depends on the class that it explains."""

from __future__ import annotations

import numpy as np

from seewhy.methods.options import Options
from seewhy.metrics.base import LOWER, EvaluatedMethod, Measured, NotMeasurable, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import Metric, not_for_files
from seewhy.metrics.rank_correlation import spearman


def _class_sensitivity(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the rank correlation of the maps for the target and for the highest-scoring other class.

    If the target is the predicted class, the other class is the second one. 1 means that the method ignores the class.
    """
    image = explanation.image
    first = explanation.varied_map
    other = next(int(index) for index in np.argsort(-image.logits, kind="stable") if index != image.target)
    found = image.explained(("class", other), lambda: image.pixels[None], other)
    (second,) = explanation.maps_of(found)
    if second.min() == second.max():
        raise NotMeasurable(f"the map for class {other} is constant")
    return Measured(spearman(first, second), details={"other": other})


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    if scope.metadata.class_count == 1:
        return "the model has a single class"
    return not_for_files(method, scope, options)


CLASS_SENSITIVITY = Metric(
    "class-sensitivity",
    "Correlation between classes",
    "class sensitivity",
    LOWER,
    _class_sensitivity,
    (-1, 1),
    "Spearman's rank correlation of the maps for two classes, as Adebayo et al. 2018, Sanity checks for saliency maps, "
    "section 3 compares the maps of two models",
    "one explanation",
    unsuitable=_unsuitable,
)
