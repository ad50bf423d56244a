"""Synthetic records of evaluated images, and summaries of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from seewhy.evaluation.summary import summarise
from seewhy.metrics.base import EvaluatedMethod
from seewhy.metrics.metric import Metric, MetricRequest
from seewhy.storage.manifest_lines import Record

TITLES = {
    "layercam": "LayerCAM",
    "gradcam": "Grad-CAM",
    "backprop": "Backprop",
    "guided-backprop": "Guided backprop",
    "random": "Random",
    "centre": "Centre",
}

METRICS = {
    "deletion": ("Deletion", "faithfulness", "lower"),
    "insertion": ("Insertion", "faithfulness", "higher"),
    "average-drop": ("Average drop", "faithfulness", "lower"),
    "completeness": ("Completeness", "faithfulness", "lower"),
    "grid-pointing": ("Grid pointing", "localisation", "higher"),
    "class-sensitivity": ("Correlation between classes", "class sensitivity", "lower"),
    "stability": ("Change under noise", "robustness", "lower"),
    "sparseness": ("Sparseness", "complexity", "higher"),
    "entropy": ("Entropy", "complexity", "lower"),
    "randomization": ("Similarity with shuffled weights", "randomization", "lower"),
    "cost": ("Milliseconds", "cost", "lower"),
    "odd": ("Odd metric", "odd", "neither"),
}

Values = Mapping[str, Mapping[str, Any]]
"""Values by metric and method: a number for each image, or a reason for an image without a value."""


@dataclass
class Case:
    """Arguments of `summarise`."""

    records: list[Record]
    methods: list[EvaluatedMethod]
    requests: list[MetricRequest]
    left_out: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return summarise(
            self.records, self.methods, self.requests, self.left_out, model={"name": "tiny", "sha256": "0" * 64}, seed=0
        )


def case(
    values: Values,
    *,
    clusters: Sequence[str] | None = None,
    failed: int = 0,
    curves: Mapping[str, Mapping[str, Any]] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Case:
    """Return a case whose images have these values. A metric leaves out the methods that it has no values of."""
    names = list(dict.fromkeys(method for by_method in values.values() for method in by_method))
    methods = [
        EvaluatedMethod(
            name,
            {**TITLES, **(titles or {})}.get(name, name),
            "cam" in name,
            "max-abs",
            is_reference=name in ("random", "centre"),
        )
        for name in names
    ]
    requests = [
        MetricRequest(Metric(name, *METRICS[name], lambda explanation, options: 0.0), {"steps": 20}) for name in values
    ]
    count = len(next(iter(next(iter(values.values())).values())))
    records = [
        {
            "path": f"images/{i}.png",
            "id": None,
            "target": None,
            "status": "done",
            "cluster": f"images/{i}.png" if clusters is None else clusters[i],
            "explained": [{"method": names[0], "class": i, "label": f"label {i}", "probability": 0.5, "logit": 1.0}],
            "metrics": {
                metric: {
                    method: _entry(of_method[i], ((curves or {}).get(metric) or {}).get(method), i)
                    for method, of_method in by_method.items()
                }
                for metric, by_method in values.items()
            },
        }
        for i in range(count)
    ]
    failures = [
        {"path": f"broken/{i}.png", "id": None, "target": None, "status": "failed", "error": f"broken/{i}.png: damaged"}
        for i in range(failed)
    ]
    left_out = [
        {"metric": metric, "method": name, "reason": "it does not apply"}
        for metric, by_method in values.items()
        for name in names
        if name not in by_method
    ]
    return Case([*failures, *records], methods, requests, left_out)


def _entry(value: Any, curves: Any, image: int) -> dict[str, Any]:
    if isinstance(value, str):
        return {"value": None, "reason": value}
    curve = {} if curves is None else {"curve": [float(one) for one in curves[image]]}
    return {"value": float(value), **curve}


def around(mean: float, count: int = 30, spread: float = 0.05, seed: int = 0) -> list[float]:
    """Return numbers with this mean exactly."""
    drawn = np.random.default_rng([seed, round(mean * 1e6) % 2**32]).normal(size=count) * spread
    return list(mean + drawn - drawn.mean())


def typical(count: int = 40, failed: int = 2) -> Case:
    """Return a case such as an evaluation of four methods with all groups of metrics."""
    means = {
        "deletion": (0.11, 0.15, 0.19, 0.20, 0.30, 0.25),
        "insertion": (0.62, 0.58, 0.48, 0.50, 0.35, 0.52),
        "grid-pointing": (0.61, 0.63, 0.35, 0.30, 0.25, 0.25),
        "class-sensitivity": (0.35, 0.30, 0.72, 0.98),
        "stability": (0.10, 0.06, 0.31, 0.12),
        "sparseness": (0.55, 0.48, 0.62, 0.71, 0.55, 0.50),
        "entropy": (10.1, 10.2, 9.9, 9.4, 10.1, 10.3),
        "randomization": (0.15, 0.20, 0.03, 0.83),
        "cost": (21.0, 20.0, 37.0, 40.0),
    }
    names = ("layercam", "gradcam", "backprop", "guided-backprop", "random", "centre")
    values: dict[str, dict[str, Any]] = {
        metric: {
            name: around(mean, count, 0.08 * abs(mean) + 0.02, seed)
            for seed, (name, mean) in enumerate(zip(names, by_method, strict=False))
        }
        for metric, by_method in means.items()
    }
    values["deletion"]["gradcam"][3] = "the map is constant"
    values["insertion"]["gradcam"][3] = "the map is constant"
    steps = np.linspace(0, 1, 21)
    rng = np.random.default_rng(0)
    curves: dict[str, dict[str, Any]] = {"deletion": {}, "insertion": {}, "randomization": {}}
    for number, name in enumerate(names):
        noise = 1 + 0.2 * rng.normal(size=(count, 1))
        curves["deletion"][name] = 0.8 * noise * np.exp(-(7 - number) * steps)
        curves["insertion"][name] = 0.8 * noise * (1 - np.exp(-(8 - number) * steps))
        if number < 4:
            curves["randomization"][name] = noise * np.exp(-[3, 2, 6, 0.2][number] * np.arange(1, 9) / 8)
    found = case(values, failed=failed, curves=curves)
    for record in found.records:
        for entry in record.get("metrics", {}).get("cost", {}).values():
            entry["details"] = {"passes": 1, "bytes": 196}
    return found


@cache
def typical_summary() -> dict[str, Any]:
    """Return the summary of the typical case, which must not be changed."""
    return typical().summary()
