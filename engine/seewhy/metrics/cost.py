"""Cost: passes, time and bytes that a method needs for one image."""

from __future__ import annotations

import time
from typing import Any

from seewhy.explainer.explainer import Explainer
from seewhy.explainer.explanation import Explanation
from seewhy.methods.options import Options
from seewhy.metrics.base import LOWER, EvaluatedMethod, Measured, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation
from seewhy.metrics.metric import Metric
from seewhy.runtime.providers import CPU


def _cost(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the milliseconds of one core for the preprocessed image, by this method alone.

    On the CPU this is the processor time of the thread, which does not count what other threads do meanwhile; with
    another provider it is the elapsed time. Details are `passes` of the graph (as multi-pass methods count them, 1 for
    other methods) and `bytes` of the raw result: the low-resolution map, or the attributions.
    """
    explainer = explanation.image.explainer.with_threads(1)
    created, (found, passes, milliseconds) = explainer.sessions_created, _timed(explainer, explanation)
    if explainer.sessions_created != created:  # the time includes the creation of a session
        found, passes, milliseconds = _timed(explainer, explanation)
    raw = found.attributions if found.maps is None else found.maps
    return Measured(milliseconds, details={"passes": passes, "bytes": raw.nbytes})


def _timed(explainer: Explainer, explanation: EvaluatedExplanation) -> tuple[Explanation, int, float]:
    """Explain the image; return the explanation, the number of passes, and the time in milliseconds."""
    request, image, passes = explanation.method.request, explanation.image, 1
    assert request is not None  # see `_unsuitable`

    def count(done: int, total: int) -> None:
        nonlocal passes
        passes = total

    more: dict[str, Any] = {"options": {request.name: request.options}, "progress": count}
    clock = time.thread_time_ns if explainer.providers[0] == CPU else time.perf_counter_ns
    start = clock()
    found = explainer.explain(image.pixels[None], request.name, image.target, **more)
    return found, passes, (clock() - start) / 1e6


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    return "the maps are not computed by the model" if method.request is None else None


COST = Metric(
    "cost",
    "Cost in milliseconds",
    "cost",
    LOWER,
    _cost,
    (0, None),
    "processor time of one core for one image, of this machine",
    "one explanation",
    unsuitable=_unsuitable,
)
