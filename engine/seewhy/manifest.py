"""`manifest.jsonl`: a line for each image that is done or has failed, and the memory of runs that were broken off.

A line is written when everything that it speaks of is safe on the disk, so what it says holds after a power failure
too. Lines are in the order of the images. A line that was torn is discarded, and its image done again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from .errors import OutputError
from .store import explained, temporary

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"

Record: TypeAlias = "dict[str, Any]"
Key: TypeAlias = "tuple[str, str | None, int | str | None]"

_SCHEMA = """
CREATE TABLE lines (key BLOB PRIMARY KEY, status TEXT) WITHOUT ROWID;
CREATE TABLE names (name BLOB);
"""


class Manifest:
    """The manifest of one output folder, open for writing. Whoever uses it holds the folder's lock.

    Attributes:
        done, failed: how many images the lines speak of, those of earlier runs included.
        shards: how many shards they name.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there, discard what an interrupted run left incomplete, and open the file for more.

        Raises:
            OutputError: the file cannot be read or written, or is damaged.
        """
        self.path = folder / NAME
        self.done = self.failed = self.shards = 0
        self._store = temporary(_SCHEMA)
        try:
            # A link of this name could lead anywhere, and a pipe would make us wait.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened: {error.strerror or error}") from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise OutputError(f"{self.path}: not a file; choose another output folder")
            self._end = self._recall()
            os.ftruncate(self._file, self._end)
        except OSError as error:
            self.close()
            raise OutputError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        except sqlite3.OperationalError as error:
            self.close()
            raise explained(error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._file)
        self._store.close()

    def status(self, key: Key) -> str | None:
        """DONE or FAILED where there was a line for the image when the manifest was opened. For one thread at a time.

        Raises:
            OutputError: the table of lines cannot be read.
        """
        try:
            found = self._store.execute("SELECT status FROM lines WHERE key = ?", (_packed(key),)).fetchone()
        except sqlite3.OperationalError as error:
            raise explained(error) from None
        return None if found is None else str(found[0])

    def names(self) -> Iterator[PurePath]:
        """The names that images had whose files were there when the manifest was opened."""
        for (name,) in self._store.execute("SELECT name FROM names"):
            yield PurePath(os.fsdecode(name))

    def append(self, records: Sequence[Record]) -> None:
        """Add lines, all or none; when this returns they are safe on the disk.

        Raises:
            OutputError: they cannot be written, or the file has been deleted, replaced or changed since.
        """
        data = b"".join(_line(record) for record in records)
        self._check_there()
        written = 0
        try:
            while written < len(data):  # at places of our own: after a failure the file's position is anywhere
                written += os.pwrite(self._file, data[written:], self._end + written)
            os.fsync(self._file)
        except OSError as error:
            self._cut()
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        except BaseException:  # an interrupt
            if written < len(data):
                self._cut()
            raise
        self._end += len(data)
        for record in records:
            self._count(record)

    def _cut(self) -> None:
        """Take away what was not written whole."""
        with suppress(OSError):  # a torn line is discarded by the next run
            os.ftruncate(self._file, self._end)

    def _check_there(self) -> None:
        own = os.fstat(self._file)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise OutputError(f"{self.path}: was deleted or replaced during the run; start the run again")
        if own.st_size != self._end:
            raise OutputError(f"{self.path}: was changed by somebody else during the run; start the run again")

    def _count(self, record: Record) -> None:
        if record["status"] == DONE:
            self.done += 1
        else:
            self.failed += 1

    def _recall(self) -> int:
        """Learn from the lines that are complete, and return where they end.

        The lines of a shard count together: where some are missing it was not committed.
        """
        end, waiting = 0, 0
        shard = None
        together: list[tuple[int, Record]] = []
        self._store.execute("BEGIN")
        for number, stop, record in self._lines():
            if waiting and record.get("shard") != shard:
                raise self._damaged(number, f"{waiting} lines of {shard} are missing before it")
            if not waiting:
                shard, waiting = record.get("shard"), record.get("lines", 1)
            together.append((number, record))
            waiting -= 1
            if not waiting:
                self._learn(together)
                self.shards += shard is not None
                together, end = [], stop
        self._store.execute("COMMIT")
        return end

    def _learn(self, together: Sequence[tuple[int, Record]]) -> None:
        for number, record in together:
            key = _packed((record["path"], record["id"], record["asked"]))
            insert = "INSERT OR IGNORE INTO lines VALUES (?, ?)"
            if self._store.execute(insert, (key, record["status"])).rowcount != 1:
                raise self._damaged(number, "the image has a line already")
            if record.get("files"):
                self._store.execute("INSERT INTO names VALUES (?)", (os.fsencode(_name(record)),))
            self._count(record)

    def _lines(self) -> Iterator[tuple[int, int, Record]]:
        """Number, end and content of every line; the last one, if it is torn, is left out."""
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                try:
                    record = json.loads(line)
                    known = isinstance(record, dict) and record["status"] in (DONE, FAILED)
                    known = known and isinstance(record["path"], str) and {"id", "asked"} <= record.keys()
                    known = known and isinstance(record.get("lines", 1), int) and record.get("lines", 1) > 0
                    known = known and bool(not record.get("files") or os.fsencode(_name(record)))
                except (ValueError, KeyError, TypeError, AttributeError, LookupError, RecursionError):
                    known = False
                if not known:
                    # A power failure may leave zeros where a line should be, and only at the end.
                    if not file.read(1):
                        return
                    raise self._damaged(number, "it is no line of a manifest")
                yield number, end, record

    def _damaged(self, number: int, why: str) -> OutputError:
        return OutputError(
            f"{self.path}: damaged at line {number}: {why}; delete this line and all behind it, whose images are then "
            f"done again, start anew with --restart, or choose another output folder"
        )


def _name(record: Record) -> str:
    """What an image's files are called: NAME of NAME.METHOD.png."""
    file: str = record["files"][0]
    return file.rpartition(f".{record['explained'][0]['method']}.")[0]


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(", ", ": ")).encode() + b"\n"


def _packed(key: Key) -> bytes:
    return json.dumps(key).encode()
