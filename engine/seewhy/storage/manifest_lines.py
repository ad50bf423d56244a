"""The lines of `manifest.jsonl`: how one is written, read back and checked.

A line is a JSON object. Its last value is a checksum (CRC-32) of what stands before it in the line, so that a line that
was damaged or edited is not taken for a result. The lines of a shard's images follow each other, and count only if all
of them are there.
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
"""Content of one line, about one image."""

LONGEST_LINE = 64 * 2**20
"""Bytes. A line names everything that was explained for an image, some hundred bytes for each method and class."""

_CHECKSUM = b', "crc32": "%08x"}\n'
_CHECKSUM_SIZE = len(_CHECKSUM % 0)
_DAMAGED = "its checksum does not fit its content"


@dataclass(frozen=True)
class RecordedFile:
    """A file that a line names."""

    path: str
    """Relative to the output folder, with slashes."""
    size: int
    """In bytes."""
    sha256: str


@dataclass(frozen=True)
class LineGroup:
    """Lines that count together: one, or those of all images in a shard."""

    lines: Sequence[tuple[int, Record]]
    """Numbers, counted from 1, and contents."""
    results: Sequence[RecordedFile]
    """The files that they name, each once."""
    end: int
    """Offset of the byte after the last line, in the file."""


def encoded(record: Record) -> bytes:
    """Return the line for a record, with its checksum and the line break.

    Raises:
        OutputError: If it would be longer than a line may be.
    """
    body = json.dumps(record, separators=(", ", ": ")).encode()[:-1]
    if len(body) + _CHECKSUM_SIZE > LONGEST_LINE:
        raise OutputError(
            f"{record['path']}: its line in {NAME} would have {len(body)} bytes, and {LONGEST_LINE} are the most; "
            f"explain fewer classes or methods at a time"
        )
    return body + _CHECKSUM % zlib.crc32(body)


def groups(file: IO[bytes], path: Path) -> Iterator[LineGroup]:
    """Read a manifest from its beginning; an incomplete end is left out.

    Args:
        file: The open manifest.
        path: Its path, for messages.

    Raises:
        OutputError: If a line is damaged, or lines of a shard are missing in the middle.
    """
    waiting: list[tuple[int, Record]] = []
    shard, missing = None, 0
    for number, end, record in _complete_lines(file, path):
        found = record.get("shard")
        if missing and found != shard:
            raise damaged(path, number, f"{missing} lines of {shard and shard['path']} are missing before it")
        if not missing:
            shard, missing = found, record.get("lines", 1)
        waiting.append((number, record))
        missing -= 1
        if not missing:
            results = [RecordedFile(*_fields(one)) for one in record.get("files", ())]
            if shard is not None:
                results = [RecordedFile(*_fields(shard))]
            yield LineGroup(waiting, results, end)
            waiting = []


def _complete_lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, Record]]:
    """Yield number, end and content of every line."""
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
            # A power failure may leave zeros where a line should be, and only at the end.
            reason = _reason(line)
            if reason == _DAMAGED and not file.read(1):
                return
            raise damaged(path, number, reason)
        yield number, end, record


def _parsed(line: bytes) -> Record | None:
    """Return what a line says, or None if it is not as `encoded` writes it."""
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
        known = known and bool(not record.get("files") or os.fsencode(name(record)))
    except (ValueError, KeyError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return record if known else None


def _reason(line: bytes) -> str:
    try:
        whole = "crc32" not in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        whole = False
    if whole:
        return "it has no checksum, because an earlier version of SeeWhy or another program wrote it"
    return _DAMAGED


def _fields(result: Any) -> tuple[Any, Any, Any]:
    return result["path"], result["bytes"], result["sha256"]


def _is_input(read: Any) -> bool:
    """Tell whether this is what a line says of the file that an image was read from, or nothing."""
    if read is None:
        return True
    known = type(read["bytes"]) is type(read["mtime_ns"]) and type(read["bytes"]) in (int, type(None))
    return known and isinstance(read.get("archive", ""), str)


def _is_result(path: Any, size: Any, sha256: Any) -> bool:
    """Tell whether these describe a file below the output folder."""
    inside = isinstance(path, str) and bool(os.fsencode(path)) and "\0" not in path
    inside = inside and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    return inside and type(size) is int and size >= 0 and isinstance(sha256, str)


def name(record: Record) -> str:
    """Return what an image's files are called: NAME of NAME.METHOD.png."""
    file: str = record["files"][0]["path"]
    return file.rpartition(f".{record['explained'][0]['method']}.")[0]


def problem(folder: Path, result: RecordedFile) -> str | None:
    """Return what is wrong with a file that a line names, without reading it; None if nothing is.

    Raises:
        OSError: If the system cannot tell, for instance because a share does not answer.
    """
    try:
        found = os.stat(folder / result.path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is not a file any more"
    if found.st_size != result.size:
        return f"has {found.st_size} bytes instead of {result.size}"
    return None


def damaged(path: Path, number: int, why: str) -> OutputError:
    """Return the error about a damaged line."""
    remedy = "" if number == 1 else "delete this line and all behind it, whose images are then explained again, "
    return OutputError(
        f"{path}: damaged at line {number}: {why}; {remedy}start anew with --restart, or choose another output folder"
    )
