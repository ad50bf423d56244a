"""Records of an image: its line in the manifest, and its rows in a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy._shared.regular_files import MISSING
from seewhy.errors import SeewhyError
from seewhy.explainer.explanation import Explanation
from seewhy.explainer.prediction import class_name
from seewhy.inputs.image_inputs import ImageInput
from seewhy.methods.method import Method
from seewhy.storage.manifest_lines import DONE, FAILED, Record
from seewhy.targets.class_targets import top_classes

TOP = 5
"""Number of highest classes in a record."""


@dataclass(frozen=True)
class ResultRow:
    """Result of one method for one class of one image."""

    method: str
    """Name of the method."""
    target: int
    """Index of the explained class."""
    heatmap: Floats
    """Map of shape (h, w) before ReLU and upsampling, or heatmap of shape (H, W) with values in [0, 1]; float32."""
    postprocessing: str
    """Steps that turn `heatmap` into a heatmap; see `postprocessing`."""


def failure_record(item: ImageInput, error: SeewhyError) -> Record:
    """Return the record of an image that failed.

    Args:
        item: The image.
        error: Reason of the failure.

    Returns:
        The content of its line in the manifest.
    """
    return {**_start(item, FAILED), "error": str(error)}


def success_record(item: ImageInput, results: Mapping[str, Explanation], image: int) -> Record:
    """Return the record of an image that was explained.

    Args:
        item: The image.
        results: Explanations of its batch by method.
        image: Index of the image in the batch.

    Returns:
        The content of its line in the manifest, without files.
    """
    first = next(iter(results.values()))
    best = top_classes(first.logits[image : image + 1], min(TOP, first.logits.shape[1]))[0].tolist()
    targets = {name: result.targets_of(image) for name, result in results.items()}
    # All methods have the logits of one run.
    classes = {index: _class(first, image, index) for index in {*best, *chain(*targets.values())}}
    warning = first.images[image].warning
    return {
        **_start(item, DONE),
        **({} if warning is None else {"warning": warning}),
        "predicted": classes[best[0]],
        f"top{TOP}": [classes[index] for index in best],
        "explained": [
            {"method": name, **classes[index], **_completeness(result, image, k)}
            for name, result in results.items()
            for k, index in enumerate(targets[name])
        ],
    }


def result_rows(results: Mapping[str, Explanation], image: int, full_size: bool) -> list[ResultRow]:
    """Return a row for each method and class of an image.

    Args:
        results: Explanations of its batch by method.
        image: Index of the image in the batch.
        full_size: True for heatmaps of the input's size, False for small maps.

    Returns:
        The rows, with copies of the maps.
    """
    rows = []
    for name, result in results.items():
        values = result.heatmaps if full_size or result.maps is None else result.maps
        each = values[image].reshape(-1, *values.shape[-2:])
        text = postprocessing(result.request.method, full_size, result.context.height, result.context.width)
        for target, heatmap in zip(result.targets_of(image), each, strict=True):
            rows.append(ResultRow(name, target, np.array(heatmap), text))
    return rows


def postprocessing(method: Method, full_size: bool, height: int, width: int) -> str:
    """Return the steps that turn a row's map into a heatmap with values in [0, 1].

    Args:
        method: The method.
        full_size: True if the row holds a heatmap of the input's size.
        height: Height of the input, in pixels.
        width: Width of the input, in pixels.

    Returns:
        `ready` if the row already holds a heatmap, or else the steps.
    """
    if full_size or not method.is_map:
        return "ready"
    relu = "relu; " if method.rectified else ""
    return f"{relu}bilinear, half-pixel centres, to {height}x{width}; min-max to 0..1"


def _start(item: ImageInput, status: str) -> Record:
    """Return the values with which every record begins."""
    record: Record = {"path": item.path, "id": item.id, "target": item.target, "status": status}
    if item.stamp is not None:
        archive = {} if item.archive is None else {"archive": item.archive}
        missing = item.stamp == MISSING
        record["input"] = {
            "bytes": None if missing else item.stamp.size,
            "mtime_ns": None if missing else item.stamp.mtime_ns,
            **archive,
        }
    return record


def _class(result: Explanation, image: int, index: int) -> dict[str, Any]:
    """Return index, label, probability and logit of a class."""
    probability = None if result.probabilities is None else _short(result.probabilities[image, index])
    return {
        "class": index,
        "label": class_name(index, result.class_labels),
        "probability": probability,
        "logit": _short(result.logits[image, index]),
    }


def _short(value: np.float32) -> float:
    """Return the float with the fewest digits that equals the float32."""
    return float(str(value))


def _completeness(result: Explanation, image: int, k: int) -> dict[str, float]:
    """Return the completeness error, if the method has one."""
    if result.completeness is None:
        return {}
    return {"completeness": _short(np.atleast_1d(result.completeness[image])[k])}
