"""Metrics of localisation that need boxes or masks of objects: the pointing game, and the energy inside of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seewhy.methods.options import Option, Options, integer
from seewhy.metrics.base import HIGHER, EvaluatedMethod, Measured, NotMeasurable, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation, positive_part
from seewhy.metrics.metric import Metric


def _regions(explanation: EvaluatedExplanation) -> NDArray[np.bool_]:
    """Return the mask of the target's objects, which is not empty."""
    regions = explanation.image.regions
    if regions is None:
        reason = explanation.image.without_regions
        raise NotMeasurable(reason or "no box or mask of the target class is given for this image")
    if not regions.any():
        raise NotMeasurable("no pixel of the model's view lies in a box or mask of the target class")
    return regions


def _pointing(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return 1 if an object lies less than `tolerance` pixels from the maximum of the map, else 0.

    Of several equal maxima, the first in row-major order counts. Distances are those between the centres of pixels of
    the model's view.
    """
    regions = _regions(explanation)
    row, column = np.unravel_index(int(explanation.varied_map.argmax()), regions.shape)
    rows, columns = np.nonzero(regions)
    nearest = ((rows - row) ** 2 + (columns - column) ** 2).min()
    return Measured(float(nearest < options["tolerance"] ** 2), details={"point": [int(column), int(row)]})


def _energy_pointing(explanation: EvaluatedExplanation, options: Options) -> float:
    """Return the share of the map's positive part that lies inside the objects."""
    regions, positive = _regions(explanation), positive_part(explanation.map)
    return float(positive[regions].sum() / positive.sum())


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    return None if scope.has_regions else "no boxes or masks of objects are given"


POINTING = (
    Metric(
        "pointing",
        "Pointing game",
        "localisation",
        HIGHER,
        _pointing,
        (0, 1),
        "Zhang et al. 2018, Top-down neural attention by excitation backprop, section 4.1; tolerance as TorchRay, in "
        "pixels of the model's view",
        "none",
        options=(
            Option(
                "tolerance",
                15,
                integer(1, 10000),
                "A map whose maximum is at least this far from an object misses it, in pixels.",
            ),
        ),
        unsuitable=_unsuitable,
    ),
    Metric(
        "energy-pointing",
        "Energy in objects",
        "localisation",
        HIGHER,
        _energy_pointing,
        (0, 1),
        "Wang et al. 2020, Score-CAM, section 4.3 (energy-based pointing game), of the positive part of the map; "
        "chance is the objects' share of the pixels",
        "none",
        unsuitable=_unsuitable,
    ),
)
