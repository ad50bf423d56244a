"""Explanations for tests of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seewhy import Explainer
from seewhy._shared.arrays import Bytes, Floats
from seewhy.methods.method import Method
from seewhy.metrics.base import EvaluatedMethod, Measured
from seewhy.metrics.evaluated_image import EvaluatedExplanation, EvaluatedImage
from seewhy.metrics.metric import Metric
from seewhy.metrics.references import REFERENCES


def evaluated(
    explainer: Explainer,
    pixels: Floats,
    methods: Sequence[str] = (),
    maps: Mapping[str, Floats] | None = None,
    target: int | None = None,
    view: Bytes | None = None,
    method_options: Mapping[str, Mapping[str, Any]] | None = None,
    reduction: str = "sum",
    name: str = "image",
    **more: Any,
) -> dict[str, EvaluatedExplanation]:
    """Return an image's explanations by method: methods of the file, given maps, and the references.

    `pixels` has the shape (Cin, H, W), and each of `maps` (H, W) or (Cin, H, W); `reduction` is that of `maps`.
    """
    found = explainer.explain(pixels[None], list(methods) or ["gradcam"], target=target, options=method_options)
    first = next(iter(found.values()))
    rows = [_row(found[method].request.method, found[method].request) for method in methods]
    rows += [EvaluatedMethod(given, given, one.ndim == 2, reduction) for given, one in (maps or {}).items()]
    attributions = {**{method: found[method].attributions[0] for method in methods}, **(maps or {})}
    pattern = np.abs(next(iter(attributions.values())).reshape(-1, *pixels.shape[1:])).max(axis=0)
    for row, reference in REFERENCES.items():
        rows.append(EvaluatedMethod(row, reference.title, True, "sum", is_reference=True))
        attributions[row] = reference.map(pattern, np.random.default_rng(list(name.encode())))
    image = EvaluatedImage(
        explainer,
        rows,
        name,
        np.zeros((*pixels.shape[1:], len(pixels)), np.uint8) if view is None else view,
        pixels,
        int(first.targets[0]) if target is None else target,
        first.logits[0],
        attributions,
        **more,
    )
    return {one.name: EvaluatedExplanation(image, one) for one in rows}


def _row(method: Method, request: Any) -> EvaluatedMethod:
    return EvaluatedMethod(method.name, method.title, method.is_map, method.reduction, request)


def measure(metric: Metric, explanation: EvaluatedExplanation, **options: Any) -> Measured:
    """Measure one explanation with the metric's defaults and these options."""
    values = {option.name: options.get(option.name, option.default) for option in metric.options}
    assert values.keys() >= options.keys()
    found = metric.measure(explanation, values)
    return found if isinstance(found, Measured) else Measured(found)
