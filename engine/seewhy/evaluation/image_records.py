"""Measured values in the records of images, which the manifest of an evaluation holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from seewhy._shared.text import short
from seewhy.errors import OutputError
from seewhy.storage.manifest_lines import FAILED, NAME, Record

Coverage: TypeAlias = Mapping[str, Sequence[str]]
"""Names of the methods that each metric measures, by the name of the metric."""

LARGEST = 1e30
"""Largest magnitude of a value or of a step of a curve. Larger ones may overflow in float32."""


class ImageRow(NamedTuple):
    """One measured value, or the failure of an image: a row of per-image.csv."""

    path: str
    """Path of the image."""
    id: str | None
    """Identifier that the list of images gives for the image, or None."""
    cluster: str
    """Name of the cluster. Images with the same name are not independent, such as crops of one image."""
    target: int | None
    """Index of the explained class; None if the image failed."""
    label: str | None
    """Label of the explained class; None if the image failed."""
    metric: str | None
    """Name of the metric; None if the image failed."""
    method: str | None
    """Name of the method or of the reference; None if the image failed."""
    value: float | None
    """The value, or None if there is none."""
    reason: str | None
    """Why there is no value, or None."""


class Measurement(NamedTuple):
    """Value of one metric for one image and one method, as a record holds it."""

    value: float | None
    """The value, or None if there is none."""
    reason: str | None
    """Why there is no value, or None."""
    curve: Sequence[float] | None
    """Values along the steps of the metric, or None."""
    details: Mapping[str, float]
    """The finite numbers among the details of the metric."""


def coverage(metrics: Iterable[str], methods: Iterable[str], left_out: Iterable[Mapping[str, Any]]) -> Coverage:
    """Return the methods that each metric measures.

    Args:
        metrics: Names of the metrics.
        methods: Names of the methods and references.
        left_out: What is not measured, with the keys `metric` and `method`, which is None for all methods.

    Returns:
        Names of the methods by metric, without metrics that measure none.
    """
    without = {(one["metric"], one["method"]) for one in left_out}
    names = list(methods)
    found = {
        metric: [method for method in names if not {(metric, method), (metric, None)} & without] for metric in metrics
    }
    return {metric: measured for metric, measured in found.items() if measured}


def is_failed(record: Record) -> bool:
    """Return True for the record of an image that failed."""
    return bool(record["status"] == FAILED)


def cluster(record: Record) -> str:
    """Return the name of an image's cluster: by default, its path."""
    return str(record.get("cluster") or record["path"])


def measurement(record: Record, metric: str, method: str) -> Measurement:
    """Read one measured value.

    Args:
        record: Record of an image that did not fail.
        metric: Name of the metric.
        method: Name of the method or reference.

    Returns:
        The value, or why there is none.

    Raises:
        OutputError: If the record does not hold a value of the expected form.
    """
    try:
        found = record["metrics"][metric][method]
        value, curve = found["value"], found.get("curve")
        details = {key: one for key, one in found.get("details", {}).items() if _is_number(one) and abs(one) <= LARGEST}
        reason = None if value is not None else found["reason"]
        valid = isinstance(reason, str) if value is None else _is_number(value)
        valid = valid and (curve is None or (isinstance(curve, list) and {*map(type, curve)} <= {int, float}))
    except (KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise OutputError(
            f"{short(record['path'])}: its line in {NAME} has no valid measurement of {metric} for {method}; start "
            f"again with --restart"
        )
    if value is None:
        return Measurement(None, reason, None, {})
    if not abs(value) <= LARGEST:
        return Measurement(None, "the value is not finite, or too large to average", None, {})
    return Measurement(float(value), None, curve, details)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def image_rows(record: Record, measured: Coverage) -> Iterator[ImageRow]:
    """Yield the rows of one image.

    Args:
        record: Record of the image.
        measured: Methods that each metric measures.

    Yields:
        A row for each metric and method, or a single row with the reason if the image failed.

    Raises:
        OutputError: If the record is damaged.
    """
    name = None if record["id"] is None else str(record["id"])
    start = (record["path"], name, cluster(record))
    if is_failed(record):
        yield ImageRow(*start, None, None, None, None, None, str(record.get("error")))
        return
    explained = _explained(record)
    for metric, methods in measured.items():
        for method in methods:
            found = measurement(record, metric, method)
            yield ImageRow(*start, *explained, metric, method, found.value, found.reason)


def _explained(record: Record) -> tuple[int | None, str | None]:
    """Return index and label of the explained class."""
    entries = record.get("explained")
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    index, label = first.get("class", record.get("target")), first.get("label")
    return (index if type(index) is int else None), (label if isinstance(label, str) else None)
