"""Table of the built-in metrics."""

from __future__ import annotations

from seewhy.metrics.class_sensitivity import CLASS_SENSITIVITY
from seewhy.metrics.completeness import COMPLETENESS
from seewhy.metrics.complexity import COMPLEXITY
from seewhy.metrics.cost import COST
from seewhy.metrics.deletion import DELETION
from seewhy.metrics.grid_pointing import GRID_POINTING
from seewhy.metrics.infidelity import INFIDELITY
from seewhy.metrics.masked_image import MASKED_IMAGE
from seewhy.metrics.metric import Metric
from seewhy.metrics.pointing import POINTING
from seewhy.metrics.randomization import RANDOMIZATION
from seewhy.metrics.road import ROAD
from seewhy.metrics.robustness import ROBUSTNESS

_FAITHFULNESS = (*DELETION, *MASKED_IMAGE, *ROAD, *INFIDELITY, *COMPLETENESS)
_LOCALISATION = (GRID_POINTING, *POINTING)

BUILT_IN: tuple[Metric, ...] = (
    *_FAITHFULNESS,
    *_LOCALISATION,
    CLASS_SENSITIVITY,
    *RANDOMIZATION,
    *ROBUSTNESS,
    *COMPLEXITY,
    COST,
)
"""All built-in metrics, in the order of `seewhy.list_metrics()`."""
