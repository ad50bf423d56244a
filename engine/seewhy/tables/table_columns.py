"""Answers as the rows of a table: one for each image, method and class; what Parquet shards and Ray datasets hold."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError, MissingExtraError
from seewhy.storage.manifest_lines import Record
from seewhy.tables.result_rows import TOP, ResultRow

DTYPES = ("float32", "float16", "uint8")
"""What heatmaps can be stored as."""


@dataclass(frozen=True)
class ShardEntry:
    """An image's part of a table."""

    record: Record
    rows: Sequence[ResultRow] = ()
    """Empty for an image that failed."""

    @property
    def size(self) -> int:
        """Bytes of its maps."""
        return sum(row.heatmap.nbytes for row in self.rows)


TableRow: TypeAlias = "tuple[Record, str, ResultRow | None]"
"""An image's record, a method, and what that says of it: None where the image failed."""

_COLUMNS = (
    *("path", "id", "error", "predicted", "label", "probability", f"top{TOP}"),
    *("method", "target", "target_label", "target_probability", "height", "width", "postprocessing"),
)
_SCALES = ("scale", "offset")
NAMES = frozenset((*_COLUMNS, "heatmap", *_SCALES, "model_sha256"))
"""Of all columns that a table may have."""


def table_rows(entries: Sequence[ShardEntry], methods: Sequence[str]) -> list[TableRow]:
    """The rows of images in their order; one that failed has a row for each method."""
    found: list[TableRow] = []
    for entry in entries:
        if entry.rows:
            found += [(entry.record, row.method, row) for row in entry.rows]
        else:
            found += [(entry.record, method, None) for method in methods]
    return found


def columns(rows: Sequence[TableRow]) -> dict[str, list[Any]]:
    """Everything but the heatmaps; None where an image failed."""
    found = [_values(*row) for row in rows]
    return {name: [values[name] for values in found] for name in _COLUMNS}


def _values(record: Record, method: str, row: ResultRow | None) -> dict[str, Any]:
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
    found: dict[str, Any] = next(
        each for each in record["explained"] if (each["method"], each["class"]) == (row.method, row.target)
    )
    return found


def arrow_table(rows: Sequence[TableRow], model: str, dtype: str = "float32") -> Any:
    """A `pyarrow.Table` of these rows; `model` is the model file's SHA-256.

    Heatmaps are lists of height * width numbers of `dtype`, row by row. With float16 and uint8 there are two more
    columns: the map is heatmap * scale + offset; see `compact`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ArgumentError: there is no such dtype.
    """
    pa = pyarrow()
    check_dtype(dtype)
    values = columns(rows)
    arrays = {name: pa.array(_clean(values[name]), kind) for name, kind in _types(pa).items()}
    flat = [None if row is None else row.heatmap.ravel() for _, _, row in rows]
    scales: list[tuple[float, float] | tuple[None, None]] = []
    if dtype != "float32":
        stored = [None if heatmap is None else compact(heatmap, dtype) for heatmap in flat]
        flat = [None if each is None else each[0] for each in stored]
        scales = [(None, None) if each is None else each[1:] for each in stored]
    arrays["heatmap"] = pa.array(flat, pa.list_(pa.from_numpy_dtype(np.dtype(dtype))))
    if dtype != "float32":
        for place, name in enumerate(_SCALES):
            arrays[name] = pa.array([each[place] for each in scales], pa.float32())
    arrays["model_sha256"] = pa.array([model] * len(rows), pa.string())
    return pa.table(arrays)


def _types(pa: Any) -> dict[str, Any]:
    best = pa.struct([("class", pa.int32()), ("label", pa.string()), ("probability", pa.float32())])
    texts = dict.fromkeys(("path", "id", "error", "label", "method", "target_label", "postprocessing"), pa.string())
    integers = dict.fromkeys(("predicted", "target", "height", "width"), pa.int32())
    shares = dict.fromkeys(("probability", "target_probability"), pa.float32())
    types = {**texts, **integers, **shares, f"top{TOP}": pa.list_(best)}
    return {name: types[name] for name in _COLUMNS}


def check_dtype(dtype: str) -> None:
    """Raises:
    ArgumentError: heatmaps cannot be stored as that.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"heatmaps cannot be stored as {brief(dtype)}; there are {', '.join(DTYPES)}")


def compact(heatmap: Floats, dtype: str) -> tuple[NDArray[Any], float, float]:
    """A map in fewer bits: (values, scale, offset), with map = values * scale + offset, and both of them float32.

    float16: the scale is the largest magnitude, so nothing overflows, and the offset 0. What is off is at most 2^-11
    of each value, and below 2^-14 of the largest at most 2^-25 of that. uint8: 256 even steps from the least value,
    the offset, to the greatest; what is off is at most half a step, 1/510 of the range, and float32's rounding.
    A heatmap's min-max takes no notice of the scale.
    """
    exact = heatmap.astype(np.float64)
    low, high = (float(exact.min()), float(exact.max())) if exact.size else (0.0, 0.0)
    if dtype == "float16":
        scale = max(abs(low), abs(high)) or 1.0
        return (exact / scale).astype(np.float16), scale, 0.0
    scale = float(np.float32((high - low) / 255)) or 1.0
    return np.rint((exact - low) / scale).clip(0, 255).astype(np.uint8), scale, low


def texts(values: Sequence[str | None]) -> Any:
    """A column of text, also where it is empty."""
    return pyarrow().array(_clean(values), pyarrow().string())


def _clean(values: Sequence[Any]) -> Sequence[Any]:
    """Arrow holds UTF-8 only: bytes of file names that are none become escapes."""
    return [v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in values]


def pyarrow() -> Any:
    """Raises:
    MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError(f'{error.name} is not installed; run: pip install "seewhy[parquet]"') from error
