"""Values of single images as a table: `per-image.csv` and `per-image.parquet`.

Both have the columns of `ImageRow`: `path`, `id`, `cluster`, `target`, `label`, `metric`, `method`, `value` and
`reason`. There is a row for each image, metric and method. If there is no value, the reason says why. An image that
failed has one row, with a reason but without a metric.

A spreadsheet would run a text that begins like a formula, and a path or a label may come from anywhere. In the CSV
file, texts that begin with `=`, `+`, `-`, `@` or an apostrophe therefore have an apostrophe before them, which tells
spreadsheets that the rest is text. Characters that do not print are written as escapes, so that each row is one line.
An empty cell means that there is none.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from seewhy._shared.regular_files import open_regular, sha256_of
from seewhy._shared.text import printable
from seewhy.errors import OutputError
from seewhy.evaluation.image_records import Coverage, ImageRow, image_rows
from seewhy.storage.manifest_lines import Record
from seewhy.tables.table_columns import clean, pyarrow

CSV_NAME, PARQUET_NAME = "per-image.csv", "per-image.parquet"
_RISKY = ("=", "+", "-", "@", "'")
_ROWS = 65_536
# The csv module refuses longer cells unless it is told otherwise. Reasons and paths are shorter.
_CELL = csv.field_size_limit()


def csv_parts(records: Iterable[Record], measured: Coverage) -> Iterator[bytes]:
    """Yield the content of `per-image.csv`.

    Args:
        records: Records of all images.
        measured: Methods that each metric measures.

    Yields:
        The header and then the rows of each image, in UTF-8.

    Raises:
        OutputError: If a record is damaged.
    """
    yield _lines([ImageRow._fields])
    for record in records:
        yield _lines(map(_cells, image_rows(record, measured)))


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cells(row: ImageRow) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: str | int | float | None) -> str:
    if not isinstance(value, str):
        return "" if value is None else repr(value)
    text = printable(value)[:_CELL]
    return f"'{text}" if text.startswith(_RISKY) else text


def read_csv(path: Path, sha256: str) -> list[ImageRow]:
    """Read `per-image.csv`.

    Args:
        path: Path of the file.
        sha256: Its SHA-256 in the summary.

    Returns:
        The rows.

    Raises:
        OutputError: If the file cannot be read, is damaged, or belongs to another summary.
    """
    try:
        with open_regular(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
            if sha256_of(file) != sha256:
                raise ValueError
            file.seek(0)
            lines = csv.reader(text, strict=True)
            if tuple(next(lines, ())) != ImageRow._fields:
                raise ValueError
            return [_parsed(line) for line in lines]
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error):
        raise OutputError(
            f"{path}: damaged, or not from the evaluation of summary.json; run the evaluation again to write both anew"
        ) from None


def _parsed(cells: list[str]) -> ImageRow:
    """Return the row of a line; raise a ValueError if it is not one."""
    path, name, cluster, target, label, metric, method, value, reason = (
        None if one == "" else one.removeprefix("'") for one in cells
    )
    number = None if value is None else float(value)
    if path is None or cluster is None or (number is None) == (reason is None) or not math.isfinite(number or 0):
        raise ValueError
    return ImageRow(
        path,
        name,
        cluster,
        None if target is None else int(target),
        label,
        metric,
        method,
        number,
        reason,
    )


def parquet_content(records: Iterable[Record], measured: Coverage) -> Callable[[IO[bytes]], object]:
    """Return a function that writes `per-image.parquet` to an open file.

    Args:
        records: Records of all images.
        measured: Methods that each metric measures.

    Returns:
        Function that takes a file that is open for writing.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    pa = pyarrow()
    parquet = importlib.import_module("pyarrow.parquet")
    types = {"target": pa.int32(), "value": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in ImageRow._fields])

    def write(file: IO[bytes]) -> None:
        rows = (row for record in records for row in image_rows(record, measured))
        with parquet.ParquetWriter(file, schema) as writer:
            # Millions of rows are written in groups, so that they are never in memory together.
            while group := list(islice(rows, _ROWS)):
                columns = map(clean, zip(*group, strict=True))
                writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))

    return write
