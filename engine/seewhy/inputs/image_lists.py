"""Read lists of images: text with one path per line, or CSV with optional targets and identifiers."""

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
# Longer than any path. Binary files have lines of any length.
_MAX_LINE_LENGTH = 65536


@dataclass(frozen=True)
class ListEntry:
    """One image of a list."""

    path: str
    target: str | None = None
    """Target as it is written in the list, or None."""
    id: str | None = None
    """Identifier, or None."""


def read_list(path: str | os.PathLike[str]) -> Iterator[ListEntry]:
    """Read a list of images.

    The list is CSV if its name ends in .csv, or if the first line of standard input names columns. Empty lines are
    skipped. File names need not be UTF-8.

    Args:
        path: Path of the list; `-` is standard input.

    Yields:
        The images, in order.

    Raises:
        ImageError: If the list cannot be read, is a device or holds no image, or if a CSV list has no column `path` or
            a line without a path.
    """
    if not os.fspath(path):
        raise ImageError("the name of a list is empty; is a variable not set?")
    name = "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)
    count = 0
    try:
        with _open(path) as file:
            for count, entry in enumerate(_entries(file, name, is_csv=name.lower().endswith(".csv")), 1):
                _check_length(entry, f"{name}: image {count}")
                yield entry
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a null character in the path
        raise ImageError(f"{short(name)}: cannot be read: {error}") from None
    if not count:
        raise ImageError(f"{name}: the list holds no images")


def _check_length(entry: ListEntry, where: str) -> None:
    """Raise an ImageError if a text is too long: every row of a shard would take as much room."""
    for column, text in ((_PATH, entry.path), (_TARGET, entry.target), (_ID, entry.id)):
        size = len((text or "").encode(errors="surrogateescape"))
        if size > LONGEST_TEXT:
            raise ImageError(f"{where}: the {column} has {size} bytes; the maximum is {LONGEST_TEXT}")


def _open(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[IO[str]]:
    if os.fspath(path) != STANDARD_INPUT:
        # A list may be a pipe, for example from a shell's process substitution. A device may be endless.
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ImageError(
                f"{os.fspath(path)}: is a device, not a list; give a file, a pipe, or - for standard input"
            )
        return Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    if sys.stdin is None:
        raise ImageError("standard input is closed; give a list as a file, or pipe one in")
    return contextlib.nullcontext(
        open(sys.stdin.fileno(), encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False)
        if _has_descriptor(sys.stdin)
        else sys.stdin
    )


def _has_descriptor(stream: IO[str]) -> bool:
    """Return whether the stream is a real file. In tests and notebooks it is not."""
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _entries(file: IO[str], name: str, is_csv: bool) -> Iterator[ListEntry]:
    lines = text_lines(file, name)
    first = next(lines, None)
    if first is None:
        return
    header = [column.strip().lower() for column in next(csv.reader([first]), [])]
    if is_csv or (name == "standard input" and _PATH in header and len(header) > 1):
        yield from _rows(lines, header, name)
        return
    yield from (ListEntry(text) for line in itertools.chain([first], lines) if (text := line.rstrip("\r\n")))


def text_lines(file: IO[str], name: str) -> Iterator[str]:
    """Yield the lines of a list; raises an `ImageError` with its name for one that is not text or has no end."""
    number = 0
    while line := file.readline(_MAX_LINE_LENGTH):
        number += 1
        if "\0" in line or (len(line) == _MAX_LINE_LENGTH and not line.endswith("\n")):
            raise ImageError(f"{name}: line {number} is not text; a list has one path per line")
        yield line


def _rows(lines: Iterator[str], header: list[str], name: str) -> Iterator[ListEntry]:
    if header.count(_PATH) != 1 or header.count(_TARGET) > 1 or header.count(_ID) > 1:
        raise ImageError(
            f"{name}: the first line must name the columns: path, and optionally target and id, each once; it is "
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
                    f"{'no path' if _PATH not in values else f'the header has {len(header)} columns'}; quote commas"
                )
            for column in (_TARGET, _ID):
                if not is_text(values.get(column, "")):
                    raise ImageError(f"{name}: the {column} in line {reader.line_num + 1} is not UTF-8")
            yield ListEntry(values[_PATH], values.get(_TARGET), values.get(_ID))
    except csv.Error as error:
        raise ImageError(f"{name}: line {reader.line_num + 1} is not CSV: {error}") from None


def is_text(value: str) -> bool:
    """Return whether the text is valid Unicode. File names need not be."""
    return value.encode(errors="replace").decode() == value
