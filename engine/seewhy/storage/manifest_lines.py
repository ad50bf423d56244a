"""Lines of `manifest.jsonl`: write, read and check them.

A line is a JSON object. Its last value is a checksum (CRC-32) of everything before it in the line, which detects lines
that were damaged or edited. The lines of the images in a shard are consecutive, and count only if they are complete.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias

from seewhy.errors import OutputError

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"

Record: TypeAlias = "dict[str, Any]"
"""Content of the line of one image."""

LONGEST_LINE = 64 * 2**20
"""Maximum length of a line, in bytes. A line has some hundred bytes for each method and class."""

_CHECKSUM = b', "crc32": "%08x"}\n'
_CHECKSUM_SIZE = len(_CHECKSUM % 0)
_DAMAGED = "its checksum does not match its content"


@dataclass(frozen=True)
class RecordedFile:
    """File that a line names."""

    path: str
    """Path relative to the output folder, with slashes."""
    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 as 64 hexadecimal digits."""


@dataclass(frozen=True)
class LineGroup:
    """Lines that count only together: a single line, or the lines of all images in a shard."""

    lines: Sequence[tuple[int, Record]]
    """Numbers of the lines, from 1, and their contents."""
    results: Sequence[RecordedFile]
    """Files that the lines name, each once."""
    end: int
    """Position after the last line in the file, in bytes."""


def encoded(record: Record) -> bytes:
    """Return the line of a record, with its checksum and the line break.

    Args:
        record: Content of the line.

    Returns:
        The line.

    Raises:
        OutputError: If the line is longer than `LONGEST_LINE`.
    """
    body = json.dumps(record).encode()[:-1]
    if len(body) + _CHECKSUM_SIZE > LONGEST_LINE:
        raise OutputError(
            f"{record['path']}: its line in {NAME} would have {len(body)} bytes, but {LONGEST_LINE} are allowed; "
            f"explain fewer classes or methods at a time"
        )
    return body + _CHECKSUM % zlib.crc32(body)


def groups(file: IO[bytes], path: Path) -> Iterator[LineGroup]:
    """Read a manifest from its beginning, without an incomplete end.

    Args:
        file: The open manifest.
        path: Path of the manifest in error messages.

    Yields:
        Lines that count together.

    Raises:
        OutputError: If a line is damaged, or lines of a shard before the end are missing.
    """
    pending: list[tuple[int, Record]] = []
    shard, missing = None, 0
    for number, end, record in _complete_lines(file, path):
        found = record.get("shard")
        if missing and found != shard:
            raise damaged(path, number, f"{missing} lines of {shard and shard['path']} are missing before it")
        if not missing:
            shard, missing = found, record.get("lines", 1)
        pending.append((number, record))
        missing -= 1
        if not missing:
            results = [RecordedFile(*_fields(one)) for one in record.get("files", ())]
            if shard is not None:
                results = [RecordedFile(*_fields(shard))]
            yield LineGroup(pending, results, end)
            pending = []


def _complete_lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, Record]]:
    """Yield number, end position and content of each complete line."""
    number = end = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) > LONGEST_LINE:
                raise damaged(path, number, f"it is longer than {LONGEST_LINE} bytes")
            return
        end += len(line)
        record = _parsed(line)
        if record is None:
            # A power failure may leave zeros in place of the last line.
            reason = _reason(line)
            if reason == _DAMAGED and not file.read(1):
                return
            raise damaged(path, number, reason)
        yield number, end, record


def _parsed(line: bytes) -> Record | None:
    """Return the content of a line, or None if `encoded` would not write it like this."""
    body = line[:-_CHECKSUM_SIZE]
    if line != body + _CHECKSUM % zlib.crc32(body):
        return None
    try:
        record = json.loads(line)
        known = isinstance(record, dict) and record["status"] in (DONE, FAILED)
        known = known and isinstance(record["path"], str) and {"id", "target"} <= record.keys()
        known = known and isinstance(record.get("lines", 1), int) and record.get("lines", 1) > 0
        known = known and _is_input(record.get("input"))
        results = [*record.get("files", ()), *([record["shard"]] if "shard" in record else ())]
        known = known and all(_is_result(*_fields(one)) for one in results)
        known = known and bool(not record.get("files") or os.fsencode(result_name(record)))
    except (ValueError, KeyError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return record if known else None


def _reason(line: bytes) -> str:
    """Return why a line is refused."""
    try:
        unchecked = "crc32" not in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        unchecked = False
    if unchecked:
        return "it has no checksum, because an earlier version of SeeWhy or another program wrote it"
    return _DAMAGED


def _fields(result: Any) -> tuple[Any, Any, Any]:
    """Return path, size and SHA-256 of a file as a line gives them."""
    return result["path"], result["bytes"], result["sha256"]


def _is_input(read: Any) -> bool:
    """Return True if a line's value `input` describes an image file, or is missing."""
    if read is None:
        return True
    known = type(read["bytes"]) is type(read["mtime_ns"]) and type(read["bytes"]) in (int, type(None))
    return known and isinstance(read.get("archive", ""), str)


def _is_result(path: Any, size: Any, sha256: Any) -> bool:
    """Return True if these values describe a file below the output folder."""
    inside = isinstance(path, str) and bool(os.fsencode(path)) and "\0" not in path
    inside = inside and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    return inside and type(size) is int and size >= 0 and isinstance(sha256, str)


def result_name(record: Record) -> str:
    """Return the common name of an image's files: NAME of NAME.METHOD.png."""
    file: str = record["files"][0]["path"]
    return file.rpartition(f".{record['explained'][0]['method']}.")[0]


def problem(folder: Path, result: RecordedFile) -> str | None:
    """Check a file that a line names, without reading it.

    Args:
        folder: The output folder.
        result: The file.

    Returns:
        Description of the problem, or None if the file exists and has its recorded size.

    Raises:
        OSError: If the file cannot be checked, for example because a network share does not answer.
    """
    try:
        found = os.stat(folder / result.path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is no longer a file"
    if found.st_size != result.size:
        return f"has {found.st_size} bytes instead of {result.size}"
    return None


def damaged(path: Path, number: int, why: str) -> OutputError:
    """Build the error for a damaged line.

    Args:
        path: Path of the manifest.
        number: Number of the line, from 1.
        why: Description of the damage.

    Returns:
        The error to raise. Its message says what the user can do.
    """
    remedy = "" if number == 1 else "delete this line and all after it to explain their images again, "
    return OutputError(
        f"{path}: damaged at line {number}: {why}; {remedy}start again with --restart, or choose another output folder"
    )
