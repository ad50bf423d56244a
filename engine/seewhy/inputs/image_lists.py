"""Lists of images in a file: one path a line, or CSV with a target and a name of its own for each."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from seewhy._shared.text import brief, short
from seewhy.contract.constants import LONGEST_TEXT
from seewhy.errors import ImageError

STANDARD_INPUT = "-"
_PATH, _TARGET, _ID = "path", "target", "id"
# Longer than any path; a binary file has lines of any length.
_LONGEST_LINE = 65536


@dataclass(frozen=True)
class ListEntry:
    """One line."""

    path: str
    target: str | None = None
    """As it is written; None where there is none."""
    id: str | None = None


def read_list(path: str | os.PathLike[str]) -> Iterator[ListEntry]:
    """Read a list: CSV where the name ends in .csv, or where the first line of standard input names columns.

    Empty lines are left out. File names that are not UTF-8 are taken as they are.

    Raises:
        ImageError: the list cannot be read, is a device, holds no image, has no column `path`, or a line without one.
    """
    if not os.fspath(path):
        raise ImageError("the name of a list is empty; name a file (an unset variable is empty, too)")
    name = "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)
    count = 0
    try:
        with _open(path) as file:
            for count, entry in enumerate(_entries(file, name, is_csv=name.lower().endswith(".csv")), 1):
                _check_length(entry, f"{name}: image {count}")
                yield entry
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path that no system takes
        raise ImageError(f"{short(name)}: cannot be read: {error}") from None
    if not count:
        raise ImageError(f"{name}: the list holds no images")


def _check_length(entry: ListEntry, where: str) -> None:
    """Raises:
    ImageError: a text is longer than any path; every row of a shard would get as much room.
    """
    for what, text in ((_PATH, entry.path), (_TARGET, entry.target), (_ID, entry.id)):
        size = len((text or "").encode(errors="surrogateescape"))
        if size > LONGEST_TEXT:
            raise ImageError(f"{where}: its {what} has {size} bytes, and {LONGEST_TEXT} are the most")


def _open(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[IO[str]]:
    if os.fspath(path) != STANDARD_INPUT:
        # A list may be a pipe, as of a shell's process substitution. A device may have no end.
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ImageError(f"{os.fspath(path)}: a device, not a list; give a file, a pipe, or - for standard input")
        return Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    if sys.stdin is None:
        raise ImageError("standard input: it is closed; give a list in a file, or pipe one in")
    return contextlib.nullcontext(
        open(sys.stdin.fileno(), encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False)
        if _is_real(sys.stdin)
        else sys.stdin
    )


def _is_real(stream: IO[str]) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _entries(file: IO[str], name: str, is_csv: bool) -> Iterator[ListEntry]:
    lines = _lines(file, name)
    first = next(lines, None)
    if first is None:
        return
    header = [column.strip().lower() for column in next(csv.reader([first]), [])]
    if is_csv or (name == "standard input" and _PATH in header and len(header) > 1):
        yield from _rows(lines, header, name)
        return
    yield from (ListEntry(text) for line in itertools.chain([first], lines) if (text := line.rstrip("\r\n")))


def _lines(file: IO[str], name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if "\0" in line or (len(line) == _LONGEST_LINE and not line.endswith("\n")):
            raise ImageError(f"{name}: line {number} is not text; a list holds one path a line")
        yield line


def _rows(lines: Iterator[str], header: list[str], name: str) -> Iterator[ListEntry]:
    if header.count(_PATH) != 1 or header.count(_TARGET) > 1 or header.count(_ID) > 1:
        raise ImageError(
            f"{name}: the first line must name the columns, one of them path, and perhaps target and id; it names "
            f"{brief(header)}"
        )
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            if not row:
                continue
            values = {column: value for column, value in zip(header, row, strict=False) if value != ""}
            if len(row) > len(header) or _PATH not in values:
                raise ImageError(
                    f"{name}: line {reader.line_num + 1} has {len(row)} values and "
                    f"{'no path' if _PATH not in values else f'there are {len(header)} columns'}; quote commas"
                )
            for column in (_TARGET, _ID):
                if not _is_text(values.get(column, "")):
                    raise ImageError(f"{name}: the {column} in line {reader.line_num + 1} is not UTF-8")
            yield ListEntry(values[_PATH], values.get(_TARGET), values.get(_ID))
    except csv.Error as error:
        raise ImageError(f"{name}: line {reader.line_num + 1} is not CSV: {error}") from None


def _is_text(value: str) -> bool:
    """Whether it is whole; a file's name need not be."""
    return value.encode(errors="replace").decode() == value
