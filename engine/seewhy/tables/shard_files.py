"""Shards: the answers for some hundred images in one file, NumPy's .npz or Parquet."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.storage.format_names import SHARD_FORMATS
from seewhy.tables.table_columns import ShardEntry, TableRow, arrow_table, columns, pyarrow, table_rows

FOLDER = "shards"


@dataclass(frozen=True)
class ShardInfo:
    """What is the same for all rows of a run."""

    methods: Sequence[str]
    model: str
    """SHA-256 of the model file."""
    run: Mapping[str, Any]
    """What `provenance.py` records, but for times."""


def name(number: int, form: str) -> str:
    """A shard's path in the output folder: in a folder of shards alone, as readers of Parquet want it."""
    return f"{FOLDER}/{number:05}.{form}"


def check(form: str) -> None:
    """Raises:
    ArgumentError: there is no such format.
    MissingExtraError: the format needs a package that is not installed.
    """
    if form not in SHARD_FORMATS:
        raise ArgumentError(f"no format of shards {brief(form)}; there are {', '.join(SHARD_FORMATS)}")
    if form == "parquet":
        pyarrow()


def content(form: str, entries: Sequence[ShardEntry], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    """What writes a shard with these entries, in this order, to an open file. Same entries give the same bytes."""
    return _WRITERS[form](table_rows(entries, about.methods), about)


def _npz(rows: Sequence[TableRow], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    shapes = {row.heatmap.shape for _, _, row in rows if row is not None}
    height, width = max(shapes, default=(0, 0))
    heatmaps = np.full((len(rows), height, width), np.nan, np.float32)
    for place, (_, _, row) in zip(heatmaps, rows, strict=True):
        if row is not None:
            place[...] = row.heatmap
    values = columns(rows)
    arrays: dict[str, Any] = {
        "path": _texts(values["path"]),
        "id": _texts(values["id"]),
        "error": _texts(values["error"]),
        "method": _texts(values["method"]),
        "predicted": _integers(values["predicted"]),
        "probability": np.array([np.nan if p is None else p for p in values["probability"]], np.float32),
        "target": _integers(values["target"]),
        "heatmap": heatmaps,
        "postprocessing": _texts(values["postprocessing"]),
        "run": np.array(json.dumps(about.run)),
    }
    return lambda file: np.savez(file, **arrays)


def _texts(values: Sequence[str | None]) -> np.ndarray[Any, Any]:
    return np.array(["" if value is None else value for value in values], dtype=str)


def _integers(values: Sequence[int | None]) -> np.ndarray[Any, Any]:
    return np.array([-1 if value is None else value for value in values], np.int64)


def _parquet(rows: Sequence[TableRow], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    pyarrow()
    parquet = importlib.import_module("pyarrow.parquet")
    table = arrow_table(rows, about.model).replace_schema_metadata({"seewhy": json.dumps(about.run)})
    return lambda file: parquet.write_table(table, file)


_WRITERS = {"npz": _npz, "parquet": _parquet}
