"""Aims for speed, and the measured values that are compared with them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.benchmark_questions import COLD, FLOOR, FORMS, OURS
from benchmarks.peers.results_file import key
from benchmarks.shared import round_statistics

Records = Mapping[str, Mapping[str, Any]]
GRADCAM, RECIPROCAM = "pytorch-grad-cam", "openvino_xai Recipro-CAM"
Pair = tuple[Sequence[float], Sequence[float]]
Measured = Callable[[Records], "Pair | None"]
# Rows that are not gradient-based rivals.
_NO_GRADIENT = (FLOOR, OURS, RECIPROCAM)


@dataclass(frozen=True)
class Aim:
    """One aim: a ratio of two times, and its limit."""

    measure: str
    limit: float
    at_most: bool
    pair: Callable[[Records], Pair | None]
    """Return the two times of every round whose ratio is compared, or None if they were not measured."""

    def value(self, records: Records) -> float | None:
        """Return the median of the rounds' ratios."""
        pair = self.pair(records)
        return None if pair is None else round_statistics.ratio(*pair)

    def spread(self, records: Records) -> tuple[float, float] | None:
        """Return the 10th and 90th percentile of the rounds' ratios."""
        pair = self.pair(records)
        if pair is None:
            return None
        ratios = round_statistics.ratios(*pair)
        return round_statistics.percentile(ratios, 0.1), round_statistics.percentile(ratios, 0.9)

    def least(self, records: Records) -> float | None:
        """Return the ratio of the fastest rounds, which approximates a machine without other load."""
        pair = self.pair(records)
        return None if pair is None else min(pair[0]) / min(pair[1])

    def reached(self, records: Records) -> bool | None:
        """Return True if the value is within the limit, or None if it was not measured."""
        value = self.value(records)
        return None if value is None else value <= self.limit if self.at_most else value >= self.limit


def aims() -> list[Aim]:
    """Return all aims, in the order of the table."""
    rows: list[Aim] = []

    def at_most(measure: str, limit: float, pair: Measured) -> None:
        rows.append(Aim(measure, limit, True, pair))

    def at_least(measure: str, limit: float, pair: Measured) -> None:
        rows.append(Aim(measure, limit, False, pair))

    forward = {"resnet50": (1.05, 1.05), "mobilenet_v2": (1.05, 1.05), "vgg16": (1.12, 1.06), "alexnet": (1.6, 1.3)}
    for model, limits in forward.items():
        for batch, limit in zip((1, 8), limits, strict=True):
            at_most(
                f"Grad-CAM ÷ onnxruntime forward, {model}, batch {batch}",
                limit,
                _times("gradcam", model, batch, OURS, FLOOR),
            )
    for model, limit in (("resnet50", 1.6), ("mobilenet_v2", 4.0)):
        at_least(f"Grad-CAM: best gradient-based rival ÷ ours, {model}, batch 1", limit, _best("gradcam", model, 1))
    at_least(
        "Grad-CAM: pytorch-grad-cam ÷ ours, resnet50, batch 1", 5.0, _times("gradcam", "resnet50", 1, GRADCAM, OURS)
    )
    for batch in (1, 8):
        at_least(
            f"openvino_xai's Recipro-CAM ÷ our Grad-CAM, resnet50, batch {batch}",
            1.0,
            _times("gradcam", "resnet50", batch, RECIPROCAM, OURS),
        )
    for model, limit in (("resnet50", 2.2), ("vgg16", 2.2), ("alexnet", 2.2), ("mobilenet_v2", 3.0)):
        for batch in (1, 8):
            at_most(
                f"guided backprop ÷ onnxruntime forward, {model}, batch {batch}",
                limit,
                _times("guided", model, batch, OURS, FLOOR),
            )
    for model, limit in (("resnet50", 1.6), ("mobilenet_v2", 3.0), ("alexnet", 1.5), ("vgg16", 1.15)):
        at_least(f"guided backprop: best rival ÷ ours, {model}, batch 1", limit, _best("guided", model, 1))
    for batch in (1, 8, 32):
        at_least(
            f"overlays from 7×7 maps: OpenCV ÷ ours, one thread, batch {batch}",
            3.0,
            _times("overlays", "any", batch, "OpenCV, 1 thread", "SeeWhy, 1 thread"),
        )
    at_most(
        "folder to overlays ÷ its forward passes, resnet50, batch 8, JPEG",
        1.15,
        _times("folder", "resnet50", 8, f"{OURS}, {FORMS['jpeg']}", FLOOR),
    )
    at_most(
        "cold start to first heatmap ÷ pytorch-grad-cam's, resnet50", 0.25, _times(COLD, "resnet50", 1, OURS, GRADCAM)
    )
    return rows


def _times(question: str, model: str, batch: int, one: str, other: str) -> Measured:
    """Return a function that returns the times of two tools in every round."""

    def pair(records: Records) -> Pair | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        above, below = (rivals.get(name, {}).get("rounds_ms") for name in (one, other))
        return (above, below) if above and below else None

    return pair


def _best(question: str, model: str, batch: int) -> Measured:
    """Return a function that returns the times of the fastest rival, whether or not its result agrees, and ours."""

    def pair(records: Records) -> Pair | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        best = quickest(rivals, [name for name in rivals if name not in _NO_GRADIENT])
        return None if best is None else _times(question, model, batch, best, OURS)(records)

    return pair


def quickest(rivals: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """Return the name with the lowest median, or None if none was measured."""
    measured = [name for name in names if "rounds_ms" in rivals[name]]
    return min(measured, key=lambda name: statistics.median(rivals[name]["rounds_ms"]), default=None)
