"""`summary.json`: write it, and read it back with validation.

Besides the summary, the file holds `per_image_sha256`, the SHA-256 of `per-image.csv`, and as its last value `sha256`,
that of everything else, so that a damaged or edited file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seewhy._shared.regular_files import open_regular
from seewhy.contract import json_values as values
from seewhy.errors import OutputError
from seewhy.evaluation.summary import SCHEMA, Summary
from seewhy.metrics.base import HIGHER, LOWER, NEITHER

NAME = "summary.json"
# Maximum size of the file, in bytes. A summary of 20 metrics and 20 methods has about a megabyte.
_LARGEST = 256 * 2**20

_Convert = Callable[[Any], Any]
_number, _direction = values.optional(values.number), values.one_of((HIGHER, LOWER, NEITHER))


def _any_object(value: Any) -> dict[str, Any]:
    """Return an object with any content."""
    values.require(isinstance(value, dict), "an object", value)
    return dict(value)


def _seed(value: Any) -> int:
    """Return an integer of at least 0."""
    values.require(type(value) is int and value >= 0, "an integer of at least 0", value)
    return int(value)


def _by_metric(convert: _Convert) -> _Convert:
    return values.dict_of(convert)


def _by_metric_and_method(convert: _Convert) -> _Convert:
    return values.dict_of(values.dict_of(convert))


_STEPS = values.tuple_of(_number)
_READ = values.fields(
    schema=values.positive,
    model=_any_object,
    complete=values.flag,
    note=values.optional(values.text),
    images=values.fields(measured=values.count, failed=values.count, clusters=values.count),
    methods=values.tuple_of(
        values.fields(name=values.text, title=values.text, reference=values.flag, options=values.optional(_any_object))
    ),
    definitions=_by_metric(
        values.fields(
            title=values.text,
            group=values.text,
            direction=_direction,
            bounds=values.tuple_of(_number),
            reference=values.text,
        )
    ),
    conventions=_any_object,
    seed=_seed,
    left_out=values.tuple_of(
        values.fields(metric=values.text, method=values.optional(values.text), reason=values.text)
    ),
    metrics=_by_metric_and_method(
        values.fields(
            mean=_number,
            low=_number,
            high=_number,
            n=values.count,
            direction=_direction,
            unmeasured=values.count,
            reasons=values.dict_of(values.count),
            details=values.dict_of(values.number),
        )
    ),
    comparisons=_by_metric(
        values.tuple_of(
            values.fields(
                first=values.text,
                second=values.text,
                difference=values.number,
                n=values.count,
                p=values.number,
                p_holm=values.number,
            )
        )
    ),
    curves=_by_metric_and_method(values.fields(mean=_STEPS, low=_STEPS, high=_STEPS, n=values.count)),
    recommendation=values.tuple_of(values.text),
    per_image_sha256=values.sha256_digits,
)


def encoded(summary: Mapping[str, Any], per_image_sha256: str) -> bytes:
    """Return the bytes of `summary.json`.

    Args:
        summary: The summary; see `summary.py`.
        per_image_sha256: SHA-256 of `per-image.csv`.

    Returns:
        The content of the file.
    """
    content = {**summary, "per_image_sha256": per_image_sha256}
    return (json.dumps({**content, "sha256": _hash(content)}, indent=2, allow_nan=False) + "\n").encode()


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Summary:
    """Read the `summary.json` of an output folder.

    Args:
        folder: The output folder.

    Returns:
        The summary, with `per_image_sha256`.

    Raises:
        OutputError: If the file cannot be read, is damaged, or was written by a newer version.
    """
    path = folder / NAME
    try:
        with open_regular(path) as file:
            values.require(os.fstat(file.fileno()).st_size <= _LARGEST, "a smaller file", None)
            found = json.loads(file.read(), object_pairs_hook=values.object_without_repeats)
        schema = values.fields(schema=values.positive)(found)["schema"]
        if schema > SCHEMA:
            raise OutputError(
                f"{path}: has schema {schema}, and this version of SeeWhy reads up to {SCHEMA}; update SeeWhy"
            )
        expected = found.pop("sha256", None)
        if expected != _hash(found):
            raise ValueError("its checksum does not match its content")
        summary: Summary = _READ(found)
        _check_names(summary)
    except FileNotFoundError:
        raise OutputError(f"{path}: does not exist; is {folder} the output folder of an evaluation?") from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise OutputError(f"{path}: damaged: {reason}; run the evaluation again to write it anew") from None
    return summary


def _check_names(summary: Summary) -> None:
    """Raise a ValueError if metrics or methods are named that the summary does not define, or curves are ragged."""
    names = {one["name"] for one in summary["methods"]}
    defined = [(metric, set(by_method) <= names) for metric, by_method in summary["metrics"].items()]
    pairs = [
        {one["first"], one["second"]} <= set(summary["metrics"].get(metric, ()))
        for metric, found in summary["comparisons"].items()
        for one in found
    ]
    steps = [
        metric in summary["metrics"] and method in names and len(one["mean"]) == len(one["low"]) == len(one["high"])
        for metric, by_method in summary["curves"].items()
        for method, one in by_method.items()
    ]
    same = summary["metrics"].keys() == summary["definitions"].keys() == summary["comparisons"].keys()
    values.require(
        same and all(known for _, known in defined) and all(pairs) and all(steps),
        "metrics and methods that are defined",
        None,
    )
