"""The aims for speed, and whether the measurements reach them."""

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
# Has no gradient.
_NO_GRADIENT = (FLOOR, OURS, RECIPROCAM)


@dataclass(frozen=True)
class Bar:
    measure: str
    limit: float
    at_most: bool
    pair: Callable[[Records], Pair | None]
    """What is divided by what, each in every round; None where it was not measured."""

    def value(self, records: Records) -> float | None:
        """The median of the rounds' ratios."""
        pair = self.pair(records)
        return None if pair is None else round_statistics.ratio(*pair)

    def spread(self, records: Records) -> tuple[float, float] | None:
        """Their tenth and ninetieth percentile."""
        pair = self.pair(records)
        if pair is None:
            return None
        ratios = round_statistics.ratios(*pair)
        return round_statistics.percentile(ratios, 0.1), round_statistics.percentile(ratios, 0.9)

    def least(self, records: Records) -> float | None:
        """The least time divided by the least: what a machine gives that has nothing else to do."""
        pair = self.pair(records)
        return None if pair is None else min(pair[0]) / min(pair[1])

    def reached(self, records: Records) -> bool | None:
        value = self.value(records)
        return None if value is None else value <= self.limit if self.at_most else value >= self.limit


def bars() -> list[Bar]:
    """The rows of the table, one for each number."""
    rows: list[Bar] = []

    def at_most(measure: str, limit: float, pair: Measured) -> None:
        rows.append(Bar(measure, limit, True, pair))

    def at_least(measure: str, limit: float, pair: Measured) -> None:
        rows.append(Bar(measure, limit, False, pair))

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
    """One's time divided by the other's."""

    def pair(records: Records) -> Pair | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        above, below = (rivals.get(name, {}).get("rounds_ms") for name in (one, other))
        return (above, below) if above and below else None

    return pair


def _best(question: str, model: str, batch: int) -> Measured:
    """The quickest rival's time divided by ours, whether or not its answer was the same."""

    def pair(records: Records) -> Pair | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        best = quickest(rivals, [name for name in rivals if name not in _NO_GRADIENT])
        return None if best is None else _times(question, model, batch, best, OURS)(records)

    return pair


def quickest(rivals: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """The one with the lowest median; None where none of them has figures."""
    measured = [name for name in names if "rounds_ms" in rivals[name]]
    return min(measured, key=lambda name: statistics.median(rivals[name]["rounds_ms"]), default=None)
