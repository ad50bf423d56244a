"""Aims for speed, and the measured values that are compared with them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import many_pass_page
from benchmarks.peers.benchmark_questions import (
    COLD,
    DRIFT,
    FLOOR,
    FORMS,
    GRADCAM,
    MULTI_PASS,
    OURS,
    OURS_BEFORE,
    OURS_INT8,
    QUESTIONS,
    RECIPROCAM,
    RECIPROCAM_INT8,
)
from benchmarks.peers.input_files import INT8_MODELS, LITE0, LITE_MODELS
from benchmarks.peers.results_file import key
from benchmarks.shared import round_statistics

Records = Mapping[str, Mapping[str, Any]]
Pair = tuple[Sequence[float], Sequence[float]]
Measured = Callable[[Records], "Pair | None"]
Source = tuple[Measured, tuple[str, ...]]
"""Function that returns the compared times, and the keys of the groups that it reads."""
MANY_PASS, CORE_TIME = "many-pass", "core-time"
FILES = {MANY_PASS: many_pass_page.FILE, CORE_TIME: "core_time.json"}
"""Records of other benchmarks, and their files below benchmarks/results."""
# Rows that are not gradient-based rivals.
_NO_GRADIENT = (FLOOR, OURS, OURS_INT8, RECIPROCAM, RECIPROCAM_INT8)


@dataclass(frozen=True)
class Aim:
    """One aim: a ratio of two times or one value, and its limit."""

    measure: str
    limit: float
    at_most: bool
    pair: Callable[[Records], Pair | None]
    """Return the two times of every round whose ratio is compared, or None if they were not measured.

    A value that is no ratio is returned as the pair of itself and one."""
    groups: tuple[str, ...] = ()
    """Keys of the groups that must be measured."""

    def value(self, records: Records) -> float | None:
        """Return the median of the rounds' ratios."""
        pair = self.pair(records)
        return None if pair is None else round_statistics.ratio(*pair)

    def rounds(self, records: Records) -> int:
        """Return the number of rounds; a value such as a correlation has one."""
        pair = self.pair(records)
        return 0 if pair is None else len(pair[0])

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


class Table:
    """Rows of a table of aims, in order."""

    def __init__(self) -> None:
        self.rows: list[Aim] = []

    def at_most(self, measure: str, limit: float, measured: Source) -> None:
        self.rows.append(Aim(measure, limit, True, *measured))

    def at_least(self, measure: str, limit: float, measured: Source) -> None:
        self.rows.append(Aim(measure, limit, False, *measured))


def aims() -> list[Aim]:
    """Return the aims of 8-bit files and of everything beside the run of the graph, in the order of the table."""
    table = Table()
    jpeg = {name: f"{name}, {FORMS['jpeg']}" for name in (OURS, OURS_INT8, OURS_BEFORE, GRADCAM)}
    for model, limits in {"resnet50": (0.42, 0.34), "mobilenet_v2": (0.62, 0.55)}.items():
        for batch, limit in zip((1, 8), limits, strict=True):
            table.at_most(
                f"Grad-CAM int8 ÷ onnxruntime float32 forward, {model}, batch {batch}",
                limit,
                _times("gradcam", model, batch, OURS_INT8, FLOOR),
            )
    table.at_least(
        "Grad-CAM: pytorch-grad-cam ÷ ours int8, resnet50, batch 1",
        14,
        _times("gradcam", "resnet50", 1, GRADCAM, OURS_INT8),
    )
    for model in LITE_MODELS:
        for field, text, limit in (
            ("correlation_median", "median of the maps' correlation", 0.995),
            ("correlation_p5", "5th percentile of the maps' correlation", 0.98),
            ("top1_agreement", "same class predicted", 0.92),
            ("top1_agreement_confident", "same class predicted, float32's probability above 0.3", 0.97),
        ):
            table.at_least(f"int8 against float32, {model}: {text}", limit, _stored_drift(model, field))
    table.at_most(
        "Grad-CAM float32 ÷ onnxruntime forward, mobilenet_v2, batch 1",
        1.05,
        _times("gradcam", "mobilenet_v2", 1, OURS, FLOOR),
    )
    for model in ("resnet50", "mobilenet_v2"):
        table.at_most(f"cold start ÷ onnxruntime's forward, time, {model}", 1.25, _times(COLD, model, 1, OURS, FLOOR))
        table.at_most(f"cold start ÷ onnxruntime's forward, peak memory, {model}", 1.2, _peaks(model))
    table.at_least(
        f"folder: float32 before 8-bit files ÷ int8, {LITE0}, JPEG",
        2,
        _times("folder", LITE0, 8, jpeg[OURS_BEFORE], jpeg[OURS_INT8]),
    )
    for model, limit in (("resnet50", 14), ("mobilenet_v2", 12)):
        table.at_least(
            f"folder: pytorch-grad-cam's loop ÷ ours int8, {model}, JPEG",
            limit,
            _times("folder", model, 8, jpeg[GRADCAM], jpeg[OURS_INT8]),
        )
    table.at_most("folder ÷ sum of its parts, core-ms, mobilenet_v2", 1.08, _core_times("job", "parts"))
    table.at_most(
        "decode and resize ÷ the same with Pillow's resizing, core-ms, mobilenet_v2",
        0.75,
        _core_times("load", "load with Pillow's resizing"),
    )
    table.at_least("multi-pass methods: runs of the graph alone ÷ ours, the lowest", 0.95, (_lowest_rate, ()))
    for name, question in MULTI_PASS.items():
        for model in question.models:
            table.at_least(f"{question.title}: best rival ÷ ours, {model}", 1.6, _best(name, model, 1))
    return table.rows


def needed_groups() -> set[str]:
    """Return the keys of the groups that `aims` and the chart at the top of the page need."""
    charted = {key("folder", model, batch) for model in INT8_MODELS for batch in QUESTIONS["folder"].batches}
    return charted.union(*(aim.groups for aim in aims()))


def earlier_aims() -> list[Aim]:
    """Return the aims for float32 files, in the order of the table."""
    table = Table()
    at_most, at_least = table.at_most, table.at_least
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
    return table.rows


def _times(question: str, model: str, batch: int, one: str, other: str) -> Source:
    """Return a function that returns the times of two tools in every round, and the key of their group."""
    group = key(question, model, batch)

    def pair(records: Records) -> Pair | None:
        rivals = records.get(group, {}).get("rivals", {})
        above, below = (rivals.get(name, {}).get("rounds_ms") for name in (one, other))
        return (above, below) if above and below else None

    return pair, (group,)


def _best(question: str, model: str, batch: int) -> Source:
    """Return a function that returns the times of the fastest rival, whether or not its result agrees, and ours."""
    group = key(question, model, batch)

    def pair(records: Records) -> Pair | None:
        rivals = records.get(group, {}).get("rivals", {})
        best = quickest(rivals, [name for name in rivals if name not in _NO_GRADIENT])
        return None if best is None else _times(question, model, batch, best, OURS)[0](records)

    return pair, (group,)


def _peaks(model: str) -> Source:
    """Return a function that returns the peak memory of SeeWhy's cold start and of the plain forward pass."""
    group = key(COLD, model, 1)

    def pair(records: Records) -> Pair | None:
        rivals = records.get(group, {}).get("rivals", {})
        peaks = [rivals.get(name, {}).get("peak_bytes") for name in (OURS, FLOOR)]
        return ([peaks[0]], [peaks[1]]) if all(peaks) else None

    return pair, (group,)


def _stored_drift(model: str, field: str) -> Source:
    """Return a function that returns a field of the drift that the quantised file of a trained network states."""
    group = key(DRIFT, model, 1)

    def pair(records: Records) -> Pair | None:
        drift = records.get(group, {}).get("stored_drift", {})
        return None if drift.get(field) is None else ([drift[field]], [1.0])

    return pair, (group,)


def _core_times(one: str, other: str) -> Source:
    """Return a function that returns two processor times of every round of `benchmarks/jobs/core_time.py`."""

    def pair(records: Records) -> Pair | None:
        rounds = records.get(CORE_TIME, {}).get("mobilenet_v2", {}).get("rounds")
        return (rounds[one], rounds[other]) if rounds else None

    return pair, ()


def _lowest_rate(records: Records) -> Pair | None:
    """Return the lowest rate of the cases of `benchmarks/jobs/many_pass.py`."""
    rates = [rate for rate in map(many_pass_page.rate, records.get(MANY_PASS, {}).values()) if rate is not None]
    return ([min(rates)], [1.0]) if rates else None


def quickest(rivals: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """Return the name with the lowest median, or None if none was measured."""
    measured = [name for name in names if "rounds_ms" in rivals[name]]
    return min(measured, key=lambda name: statistics.median(rivals[name]["rounds_ms"]), default=None)
