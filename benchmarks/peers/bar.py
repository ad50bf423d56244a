"""What was to be reached, and whether it was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import figures
from .questions import COLD, FLOOR, FORMS, OURS
from .results import key

Records = Mapping[str, Mapping[str, Any]]
GRADCAM, RECIPROCAM = "pytorch-grad-cam", "openvino_xai Recipro-CAM"
# Has no gradient.
_NO_GRADIENT = (FLOOR, OURS, RECIPROCAM)


@dataclass(frozen=True)
class Bar:
    measure: str
    limit: float
    at_most: bool
    value: Callable[[Records], float | None]
    """None where it was not measured."""

    def reached(self, records: Records) -> bool | None:
        value = self.value(records)
        return None if value is None else value <= self.limit if self.at_most else value >= self.limit


def bars() -> list[Bar]:
    """The rows of the table, one for each number."""
    rows: list[Bar] = []

    def at_most(measure: str, limit: float, value: Callable[[Records], float | None]) -> None:
        rows.append(Bar(measure, limit, True, value))

    def at_least(measure: str, limit: float, value: Callable[[Records], float | None]) -> None:
        rows.append(Bar(measure, limit, False, value))

    forward = {"resnet50": (1.05, 1.05), "mobilenet_v2": (1.05, 1.05), "vgg16": (1.12, 1.06), "alexnet": (1.6, 1.3)}
    for model, limits in forward.items():
        for batch, limit in zip((1, 8), limits, strict=True):
            at_most(
                f"Grad-CAM ÷ onnxruntime forward, {model}, batch {batch}", limit, _over("gradcam", model, batch, FLOOR)
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
                _over("guided", model, batch, FLOOR),
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


def _over(question: str, model: str, batch: int, floor: str) -> Callable[[Records], float | None]:
    return _times(question, model, batch, OURS, floor)


def _times(question: str, model: str, batch: int, one: str, other: str) -> Callable[[Records], float | None]:
    """One's time divided by the other's, median of the rounds."""

    def value(records: Records) -> float | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        pair = [rivals.get(name, {}).get("rounds_ms") for name in (one, other)]
        return figures.ratio(*pair) if all(pair) else None

    return value


def _best(question: str, model: str, batch: int) -> Callable[[Records], float | None]:
    """The quickest rival's time divided by ours, whether or not its answer was the same."""

    def value(records: Records) -> float | None:
        rivals = records.get(key(question, model, batch), {}).get("rivals", {})
        best = quickest(rivals, [name for name in rivals if name not in _NO_GRADIENT])
        return None if best is None else _times(question, model, batch, best, OURS)(records)

    return value


def quickest(rivals: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """The one with the lowest median; None where none of them has figures."""
    measured = [name for name in names if "rounds_ms" in rivals[name]]
    return min(measured, key=lambda name: statistics.median(rivals[name]["rounds_ms"]), default=None)
