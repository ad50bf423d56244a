"""Shards: files with the results of up to some thousand images, as NumPy's .npz or Parquet."""

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
"""Folder for shards in the output folder."""


@dataclass(frozen=True)
class ShardInfo:
    """Values that are the same for all rows of a job."""

    methods: Sequence[str]
    """Names of the methods."""
    model: str
    """SHA-256 of the model file."""
    run: Mapping[str, Any]
    """Content of `run.json`, without times."""


def name(number: int, form: str) -> str:
    """Build the path of a shard.

    Shards have their own folder, because readers of Parquet expect a folder without other files.

    Args:
        number: Number of the shard.
        form: Name of the format.

    Returns:
        Path below the output folder, such as `shards/00012.npz`.
    """
    return f"{FOLDER}/{number:05}.{form}"


def check(form: str) -> None:
    """Check that a format of shards can be written.

    Args:
        form: Name of the format.

    Raises:
        ArgumentError: If the format is unknown.
        MissingExtraError: If the format needs a package that is not installed.
    """
    if form not in SHARD_FORMATS:
        raise ArgumentError(f"Unknown shard format {brief(form)}; choose one of {', '.join(SHARD_FORMATS)}")
    if form == "parquet":
        pyarrow()


def content(form: str, entries: Sequence[ShardEntry], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    """Return a function that writes a shard to an open file.

    Args:
        form: Name of the format.
        entries: Images of the shard, in their order. Equal entries give equal bytes.
        about: Values that are the same for all rows.

    Returns:
        Function that takes a file that is open for writing.
    """
    return _WRITERS[form](table_rows(entries, about.methods), about)


def _npz(rows: Sequence[TableRow], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    """Return a function that writes an npz shard."""
    shapes = {row.heatmap.shape for _, _, row in rows if row is not None}
    height, width = max(shapes, default=(0, 0))
    heatmaps = np.full((len(rows), height, width), np.nan, np.float32)
    for heatmap, (_, _, row) in zip(heatmaps, rows, strict=True):
        if row is not None:
            heatmap[...] = row.heatmap
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
    """Return an array of strings, in which None becomes an empty string."""
    return np.array(["" if value is None else value for value in values], dtype=str)


def _integers(values: Sequence[int | None]) -> np.ndarray[Any, Any]:
    """Return an array of integers, in which None becomes -1."""
    return np.array([-1 if value is None else value for value in values], np.int64)


def _parquet(rows: Sequence[TableRow], about: ShardInfo) -> Callable[[IO[bytes]], object]:
    """Return a function that writes a Parquet shard."""
    pyarrow()
    parquet = importlib.import_module("pyarrow.parquet")
    table = arrow_table(rows, about.model).replace_schema_metadata({"seewhy": json.dumps(about.run)})
    return lambda file: parquet.write_table(table, file)


_WRITERS = {"npz": _npz, "parquet": _parquet}
