"""Columns of the tables in Parquet shards and Ray datasets, with one row for each image, method and class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy._shared.extras import missing_extra
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.storage.manifest_lines import Record
from seewhy.tables.result_rows import TOP, ResultRow

DTYPES = ("float32", "float16", "uint8")
"""Names of the dtypes in which heatmaps can be stored."""


@dataclass(frozen=True)
class ShardEntry:
    """Rows of one image."""

    record: Record
    """Record of the image."""
    rows: Sequence[ResultRow] = ()
    """Results of the image; empty if it failed."""

    @property
    def size(self) -> int:
        """Size of the maps, in bytes."""
        return sum(row.heatmap.nbytes for row in self.rows)


TableRow: TypeAlias = "tuple[Record, str, ResultRow | None]"
"""Record of an image, a method, and its result, or None if the image failed."""

_COLUMNS = (
    *("path", "id", "error", "predicted", "label", "probability", f"top{TOP}"),
    *("method", "target", "target_label", "target_probability", "height", "width", "postprocessing"),
)
_SCALES = ("scale", "offset")
NAMES = frozenset((*_COLUMNS, "heatmap", *_SCALES, "model_sha256"))
"""Names of all columns that a table may have."""


def table_rows(entries: Sequence[ShardEntry], methods: Sequence[str]) -> list[TableRow]:
    """Collect the rows of images.

    Args:
        entries: The images.
        methods: Names of the methods.

    Returns:
        The rows, in the order of the images. An image that failed has one row for each method.
    """
    found: list[TableRow] = []
    for entry in entries:
        if entry.rows:
            found += [(entry.record, row.method, row) for row in entry.rows]
        else:
            found += [(entry.record, method, None) for method in methods]
    return found


def columns(rows: Sequence[TableRow]) -> dict[str, list[Any]]:
    """Return the columns without the heatmaps, by name. Values are None in rows of an image that failed."""
    found = [_values(*row) for row in rows]
    return {name: [values[name] for values in found] for name in _COLUMNS}


def _values(record: Record, method: str, row: ResultRow | None) -> dict[str, Any]:
    """Return the values of one row by column."""
    predicted = record.get("predicted", {})
    explained = {} if row is None else _explained(record, row)
    best = record.get(f"top{TOP}")
    return {
        "path": record["path"],
        "id": record["id"],
        "error": record.get("error"),
        "predicted": predicted.get("class"),
        "label": predicted.get("label"),
        "probability": predicted.get("probability"),
        f"top{TOP}": best and [{k: b[k] for k in ("class", "label", "probability")} for b in best],
        "method": method,
        "target": explained.get("class"),
        "target_label": explained.get("label"),
        "target_probability": explained.get("probability"),
        "height": None if row is None else row.heatmap.shape[0],
        "width": None if row is None else row.heatmap.shape[1],
        "postprocessing": None if row is None else row.postprocessing,
    }


def _explained(record: Record, row: ResultRow) -> dict[str, Any]:
    """Return the entry of the record that belongs to a row."""
    found: dict[str, Any] = next(
        each for each in record["explained"] if (each["method"], each["class"]) == (row.method, row.target)
    )
    return found


def arrow_table(rows: Sequence[TableRow], model: str, dtype: str = "float32") -> Any:
    """Return rows as a `pyarrow.Table`.

    A heatmap is a list of height * width numbers in row-major order. For float16 and uint8, there are two more columns:
    the map is heatmap * scale + offset; see `compact`.

    Args:
        rows: The rows.
        model: SHA-256 of the model file.
        dtype: One of DTYPES.

    Returns:
        The table.

    Raises:
        ArgumentError: If the dtype is unknown.
        MissingExtraError: If pyarrow is not installed.
    """
    pa = pyarrow()
    check_dtype(dtype)
    values = columns(rows)
    arrays = {name: pa.array(clean(values[name]), kind) for name, kind in _types(pa).items()}
    flat = [None if row is None else row.heatmap.ravel() for _, _, row in rows]
    scales: list[tuple[float, float] | tuple[None, None]] = []
    if dtype != "float32":
        stored = [None if heatmap is None else compact(heatmap, dtype) for heatmap in flat]
        flat = [None if each is None else each[0] for each in stored]
        scales = [(None, None) if each is None else each[1:] for each in stored]
    arrays["heatmap"] = pa.array(flat, pa.list_(pa.from_numpy_dtype(np.dtype(dtype))))
    if dtype != "float32":
        for i, name in enumerate(_SCALES):
            arrays[name] = pa.array([each[i] for each in scales], pa.float32())
    arrays["model_sha256"] = pa.array([model] * len(rows), pa.string())
    return pa.table(arrays)


def _types(pa: Any) -> dict[str, Any]:
    """Return the type of each column."""
    best = pa.struct([("class", pa.int32()), ("label", pa.string()), ("probability", pa.float32())])
    texts = dict.fromkeys(("path", "id", "error", "label", "method", "target_label", "postprocessing"), pa.string())
    integers = dict.fromkeys(("predicted", "target", "height", "width"), pa.int32())
    shares = dict.fromkeys(("probability", "target_probability"), pa.float32())
    types = {**texts, **integers, **shares, f"top{TOP}": pa.list_(best)}
    return {name: types[name] for name in _COLUMNS}


def check_dtype(dtype: str) -> None:
    """Validate the dtype of stored heatmaps.

    Args:
        dtype: Name of the dtype.

    Raises:
        ArgumentError: If the dtype is not one of DTYPES.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype must be one of {', '.join(DTYPES)}, not {brief(dtype)}")


def compact(heatmap: Floats, dtype: str) -> tuple[NDArray[Any], float, float]:
    """Store a map with fewer bits, as map = values * scale + offset.

    For float16, the scale is the largest magnitude, so that nothing overflows, and the offset is 0. The error is at
    most 2^-11 of each value; for values below 2^-14 of the largest magnitude, it is at most 2^-25 of that magnitude.
    For uint8, the range from the smallest value (the offset) to the largest is divided into 255 equal steps. The error
    is at most half a step, 1/510 of the range, plus the rounding to float32. The min-max of a heatmap does not depend
    on the scale.

    Args:
        heatmap: The map, float32 of any shape.
        dtype: `float16` or `uint8`.

    Returns:
        Values in the dtype, scale and offset, the latter two exact in float32.
    """
    exact = heatmap.astype(np.float64)
    low, high = (float(exact.min()), float(exact.max())) if exact.size else (0.0, 0.0)
    if dtype == "float16":
        scale = max(abs(low), abs(high)) or 1.0
        return (exact / scale).astype(np.float16), scale, 0.0
    scale = float(np.float32((high - low) / 255)) or 1.0
    return np.rint((exact - low) / scale).clip(0, 255).astype(np.uint8), scale, low


def texts(values: Sequence[str | None]) -> Any:
    """Return a pyarrow array of text, also if it is empty."""
    return pyarrow().array(clean(values), pyarrow().string())


def clean(values: Sequence[Any]) -> Sequence[Any]:
    """Replace characters that are not UTF-8, as in file names, by escapes, because Arrow allows only UTF-8."""
    return [v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in values]


def pyarrow() -> Any:
    """Import pyarrow.

    Returns:
        The module.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise missing_extra(f"{error.name} is not installed", "parquet") from error
