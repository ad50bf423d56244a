"""`manifest.jsonl`: one line for each image that is done or has failed. A job reads it to resume.

A line is written after all files that it names are flushed to disk, so it is also valid after a power failure. Lines
are in the order of the images; lines of images that are explained again come last. An incomplete last line is
discarded, and its image is explained again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TypeAlias

from seewhy._shared.regular_files import MISSING, file_stamp
from seewhy._shared.temp_tables import explained, temporary
from seewhy.errors import OutputError
from seewhy.storage.manifest_lines import (
    DONE,
    FAILED,
    NAME,
    Record,
    RecordedFile,
    damaged,
    encoded,
    groups,
    problem,
    result_name,
)
from seewhy.storage.output_folder import Folder
from seewhy.storage.recorded_paths import RecordedPaths

Key: TypeAlias = "tuple[str, str | None, int | str | None]"
"""Identity of an image: its path, and its id and its target in a list."""

# `line` is the number of the line in the file, `archive` the tar archive that contains the image, and `stamp` the stamp
# of the image file, or of its archive, when it was read: text, because SQLite's integers may be too short for a time.
_SCHEMA = """
CREATE TABLE lines (
    key BLOB PRIMARY KEY, status TEXT, line INTEGER, shard TEXT, name BLOB, archive BLOB, stamp TEXT
) WITHOUT ROWID;
CREATE INDEX by_archive ON lines (archive);
CREATE INDEX by_shard ON lines (shard);
CREATE TABLE lost (line INTEGER PRIMARY KEY);
CREATE TABLE given (line INTEGER PRIMARY KEY);
CREATE TABLE changed (line INTEGER PRIMARY KEY);
CREATE TABLE discarded (line INTEGER PRIMARY KEY);
"""


class Manifest:
    """Manifest of an output folder, open for writing. The caller must hold the lock of the folder.

    Attributes:
        path: Path of the file.
        done: Number of images that are recorded as done.
        failed: Number of images that are recorded as failed.
        shards: Paths of the shards that lines name.
        paths: Translation between the paths that are given now and those of the lines.
    """

    def __init__(self, folder: Path, stops: Callable[[], bool] = lambda: False) -> None:
        """Read the existing lines. Nothing is changed before `begin` is called.

        Every file that a line names must exist and have its recorded size; `lost` counts the images of which a file
        does not.

        Args:
            folder: The output folder.
            stops: Function that returns True to skip the remaining checks of files.

        Raises:
            OutputError: If the file cannot be read or written, or is damaged, or a result cannot be checked.
        """
        self.path = folder / NAME
        self._folder = folder
        self._store = temporary(_SCHEMA)
        self.paths = RecordedPaths(None, "/")
        try:
            self._file = self._open()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened: {error.strerror or error}") from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise OutputError(f"{self.path}: is not a file; choose another output folder")
            self._end = self._read_lines(stops)
        except OSError as error:
            self.close()
            raise OutputError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        except sqlite3.OperationalError as error:
            self.close()
            raise explained(error) from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        """Open the file without following links or blocking on a pipe."""
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        self._store.close()

    def begin(self) -> None:
        """Remove an incomplete end, so that lines can be added.

        Raises:
            OutputError: If the file cannot be written.
        """
        try:
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def status(self, key: Key, archive: str | None = None) -> str | None:
        """Return the status of an image when the manifest was opened. Only one thread may call this at a time.

        Args:
            key: Identity of the image.
            archive: Path of its archive; None for a file.

        Returns:
            DONE, FAILED, or None if the image has no line.

        Raises:
            OutputError: If the temporary table of lines cannot be read.
        """
        if not self._had_lines:
            return None
        try:
            found = self._find(key, archive)
        except sqlite3.OperationalError as error:
            raise explained(error) from None
        return None if found is None else str(found[0])

    def _find(self, key: Key, archive: str | None = None) -> tuple[str, int, str | None] | None:
        """Return status, number and stamp of the line of an image, or None if it has no line."""
        for path in self.paths.forms(key[0], archive):
            query = "SELECT status, line, stamp FROM lines WHERE key = ?"
            found: tuple[str, int, str | None] | None = self._store.execute(
                query, (_packed((path, *key[1:])),)
            ).fetchone()
            if found is not None:
                return found
        return None

    def names(self) -> Iterator[PurePath]:
        """Yield the result names of the images that had files when the manifest was opened."""
        for (found,) in self._store.execute("SELECT name FROM lines WHERE name IS NOT NULL"):
            yield PurePath(os.fsdecode(found))

    # Lost results and changed images.

    @property
    def lost(self) -> int:
        """Number of images of which a result is missing or does not have its recorded size."""
        return self._count("lost")

    @property
    def changed(self) -> int:
        """Number of images for which `compare` or `compare_archive` found a change."""
        return self._count("changed")

    @contextmanager
    def comparing(self) -> Iterator[None]:
        """Make many calls of `compare` and `compare_archive` in this context faster."""
        self._store.execute("BEGIN")
        yield
        self._store.execute("COMMIT")

    def compare(self, key: Key, path: str) -> None:
        """Record that this image is an input of the job, and whether its file has changed since its line was written.

        Args:
            key: Identity of the image.
            path: Path of its file.
        """
        found = self._find(key)
        if found is not None:
            self._store.execute("INSERT OR IGNORE INTO given VALUES (?)", found[1:2])
            if _differs(found[2], path):
                self._store.execute("INSERT OR IGNORE INTO changed VALUES (?)", found[1:2])

    def is_same(self, key: Key, path: str, sizes_only: bool = False) -> bool | None:
        """Return whether the file of an image has the size and time that its line records.

        Args:
            key: Identity of the image.
            path: Path of its file.
            sizes_only: True to compare only sizes, and to take a missing file for the same.

        Returns:
            True, or False if the file has changed or is missing; None if the image has no line.
        """
        found = self._find(key)
        return None if found is None else not _differs(found[2], path, not sizes_only, sizes_only)

    def compare_archive(self, archive: str) -> None:
        """Record that this archive is an input of the job, and whether it has changed since its members were read.

        Args:
            archive: Path of the archive.
        """
        stamp = file_stamp(archive)
        for name in map(os.fsencode, self.paths.forms(archive)):
            self._store.execute("INSERT OR IGNORE INTO given SELECT line FROM lines WHERE archive = ?", (name,))
            if stamp != MISSING:
                self._store.execute(
                    "INSERT OR IGNORE INTO changed SELECT line FROM lines WHERE archive = ? AND stamp != ?",
                    (name, _stamp(stamp.size, stamp.mtime_ns)),
                )

    def is_same_archive(self, archive: str, sizes_only: bool = False) -> bool | None:
        """Return whether an archive has the size and time that a line of a member records.

        Args:
            archive: Path of the archive.
            sizes_only: As in `is_same`.

        Returns:
            True, or False if the archive has changed or is missing; None if none of its members has a line.
        """
        for name in map(os.fsencode, self.paths.forms(archive)):
            found = self._store.execute("SELECT stamp FROM lines WHERE archive = ? LIMIT 1", (name,)).fetchone()
            if found is not None:
                return not _differs(found[0], archive, not sizes_only, sizes_only)
        return None

    def given_files(self) -> dict[str, int]:
        """Return the number of done and of failed images for which `compare` was called, by status."""
        counts = self._store.execute(
            "SELECT status, count(*) FROM lines WHERE archive IS NULL AND line IN (SELECT line FROM given) "
            "GROUP BY status"
        )
        return {DONE: 0, FAILED: 0, **dict(counts)}

    def discard(self, folder: Folder, changed: bool, failed: bool, prepare: Callable[[], object]) -> tuple[int, int]:
        """Remove the lines of images that must be explained again, such as those with lost results.

        A shard is written as a whole, so the lines of all its images are removed together. Existing results that would
        not be replaced are kept: those of images that are not inputs of the job, and shards that contain such an image.

        Args:
            folder: The output folder.
            changed: True to explain changed images again.
            failed: True to explain images again that failed.
            prepare: Function that is called before the manifest is rewritten. It is not called if nothing is removed.

        Returns:
            Number of images that will be explained again, and number of images that should be explained again but
            cannot, because they or other images of their shard are not inputs of the job.

        Raises:
            OutputError: If the new manifest cannot be written. The old one then stays unchanged.
        """
        run = self._store.execute
        outdated = "SELECT line FROM lost" + (" UNION SELECT line FROM changed" if changed else "")
        outdated += f" UNION SELECT line FROM lines WHERE status = '{FAILED}'" if failed else ""
        run(
            f"INSERT OR IGNORE INTO discarded SELECT line FROM lines WHERE line IN ({outdated}) AND shard IS NULL "
            "AND line IN (SELECT line FROM given)"
        )
        given = "SELECT shard FROM lines WHERE line IN (SELECT line FROM given)"
        not_given = "SELECT shard FROM lines WHERE shard IS NOT NULL AND line NOT IN (SELECT line FROM given)"
        for lines, condition in (
            ("SELECT line FROM lost", f"shard IN ({given})"),
            (outdated, f"shard NOT IN ({not_given})"),
        ):
            run(
                "INSERT OR IGNORE INTO discarded SELECT line FROM lines WHERE shard IN "
                f"(SELECT shard FROM lines WHERE line IN ({lines})) AND {condition}"
            )
        count = "SELECT count(*) FROM"
        [needed] = run(f"{count} (SELECT line FROM discarded UNION {outdated})").fetchone()
        [again] = run(f"{count} discarded WHERE line IN (SELECT line FROM given)").fetchone()
        if self._count("discarded"):
            prepare()
            folder.rewrite(PurePath(NAME), self._remaining_lines())
            try:
                file = self._open()
            except OSError as error:
                raise OutputError(f"{self.path}: cannot be opened: {error.strerror or error}") from None
            os.close(self._file)
            self._file = file
            self._end = os.fstat(self._file).st_size
            run("DELETE FROM lines WHERE line IN (SELECT line FROM discarded)")
            self._update_counts()
        return int(again), int(needed - again)

    def _remaining_lines(self) -> Iterator[bytes]:
        """Yield the lines that are not discarded."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                if self._store.execute("SELECT 1 FROM discarded WHERE line = ?", (number,)).fetchone() is None:
                    yield line

    def _count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self._store.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _update_counts(self) -> None:
        """Update `done`, `failed` and `shards` from the table of lines."""
        counts = dict(self._store.execute("SELECT status, count(*) FROM lines GROUP BY status"))
        self.done, self.failed = counts.get(DONE, 0), counts.get(FAILED, 0)
        self._had_lines = bool(counts)
        self.shards = {shard for (shard,) in self._store.execute("SELECT DISTINCT shard FROM lines") if shard}

    # Writing.

    def append(self, records: Sequence[Record]) -> None:
        """Add lines, either all or none, and flush them to disk.

        Args:
            records: Contents of the lines.

        Raises:
            OutputError: If the lines cannot be written, or the file has been deleted, replaced or changed.
        """
        data = b"".join(map(encoded, records))
        self._check_unchanged()
        written = 0
        try:
            while written < len(data):  # at explicit offsets, since a failure leaves the file position undefined
                written += os.pwrite(self._file, data[written:], self._end + written)
            os.fsync(self._file)
        except OSError as error:
            self._truncate()
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        except BaseException:  # an interrupt
            if written < len(data):
                self._truncate()
            raise
        self._end += len(data)
        for record in records:
            if record["status"] == DONE:
                self.done += 1
            else:
                self.failed += 1

    def _truncate(self) -> None:
        """Remove lines that were written incompletely."""
        with suppress(OSError):  # an incomplete line is discarded on resume
            os.ftruncate(self._file, self._end)

    def _check_unchanged(self) -> None:
        """Raise an OutputError if the file was deleted, replaced or changed by another program."""
        own = os.fstat(self._file)
        try:
            current = os.stat(self.path, follow_symlinks=False)
        except OSError:
            current = None
        if current is None or (current.st_dev, current.st_ino) != (own.st_dev, own.st_ino):
            raise OutputError(f"{self.path}: was deleted or replaced during the job; start the job again")
        if own.st_size != self._end:
            raise OutputError(f"{self.path}: was changed by another program during the job; start the job again")

    # Reading.

    def _read_lines(self, stops: Callable[[], bool]) -> int:
        """Read the complete lines into the table, and return the position after the last one in the file."""
        end = 0
        self._store.execute("BEGIN")
        with os.fdopen(os.dup(self._file), "rb") as file:
            for group in groups(file, self.path):
                is_lost = not stops() and any(map(self._is_lost, group.results))
                for number, record in group.lines:
                    self._insert_line(number, record, is_lost)
                end = group.end
        self._store.execute("COMMIT")
        self._update_counts()
        return end

    def _is_lost(self, result: RecordedFile) -> bool:
        """Return True if a file is missing or does not have its recorded size."""
        try:
            return problem(self._folder, result) is not None
        except OSError as error:  # for example a network share that does not answer: the file may still exist
            path = self._folder / result.path
            raise OutputError(f"{path}: cannot be checked: {error.strerror or error}") from None

    def _insert_line(self, number: int, record: Record, is_lost: bool) -> None:
        """Add a line to the table."""
        key = _packed((record["path"], record["id"], record["target"]))
        files, shard, read = record.get("files"), record.get("shard"), record.get("input") or {}
        values = (
            *(key, record["status"], number),
            shard and shard["path"],
            os.fsencode(result_name(record)) if files else None,
            os.fsencode(read["archive"]) if "archive" in read else None,
            _stamp(read["bytes"], read["mtime_ns"]) if read else None,
        )
        insert = f"INSERT OR IGNORE INTO lines VALUES ({', '.join('?' * len(values))})"
        if self._store.execute(insert, values).rowcount != 1:
            raise damaged(self.path, number, "the image has a line already")
        if is_lost:
            self._store.execute("INSERT INTO lost VALUES (?)", (number,))


def _differs(recorded: str | None, path: str, if_missing: bool = False, sizes_only: bool = False) -> bool:
    """Return whether the stamp of a file is not the recorded one; `if_missing` if the file or the stamp is missing."""
    stamp = file_stamp(path)
    if recorded is None or stamp == MISSING:
        return if_missing
    if sizes_only:  # the size is None if the file was missing
        return recorded.split()[0] not in ("None", str(stamp.size))
    return recorded != _stamp(stamp.size, stamp.mtime_ns)


def _stamp(size: int | None, mtime_ns: int | None) -> str:
    """Return a stamp as text for the table."""
    return f"{size} {mtime_ns}"


def _packed(key: Key) -> bytes:
    """Return a key as bytes for the table."""
    return json.dumps(key).encode()
