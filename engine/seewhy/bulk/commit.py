"""Flush results to the disk, and then append the manifest's lines about them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any, Protocol

from seewhy.bulk.outcomes import Outcome
from seewhy.errors import OutputError
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import Record
from seewhy.storage.output_folder import Folder, WrittenFile
from seewhy.tables import shard_files
from seewhy.tables.shard_files import ShardInfo
from seewhy.tables.table_columns import ShardEntry

# Making a file safe takes 0.1 to 0.5 ms, in which the threads that work go on; only at the end of a run do all wait for
# it. What is not safe yet is done again.
FILES = 16
"""Number of images after which their files are made safe."""
SECONDS = 1.0
"""Time after which files are made safe, however few they are, in seconds."""
# A shard is written when it has so many bytes of maps, if not before.
_SHARD_BYTES = 64 * 2**20


class ResultWriter(Protocol):
    """Takes outcomes in order."""

    def add(self, outcome: Outcome) -> None:
        """Take one; it may become safe at once, or with others later."""

    def flush(self) -> None:
        """Make everything safe that was added."""


class FigureWriter:
    """Each image has files of its own."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._records: list[Record] = []
        self._files: list[Path] = []
        self._since = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        files = [file_record(file, self._folder) for file in outcome.files]
        self._files += [file.path for file in outcome.files]  # first: an interrupt may come between the two
        self._records.append({**outcome.record, "files": files} if files else outcome.record)
        if len(self._records) >= FILES or time.monotonic() - self._since >= SECONDS:
            self.flush()

    def flush(self) -> None:
        # They are let go first. What is half done when something comes in between is left to the next run; doing it
        # again here might write lines twice.
        records, files = self._records, self._files
        self._records, self._files, self._since = [], [], time.monotonic()
        self._folder.check()
        sync([*files, *dict.fromkeys(parent for path in files for parent in _parents(path, self._folder))])
        if records:
            self._manifest.append(records)


class ShardWriter:
    """Many images share a file."""

    def __init__(self, folder: Folder, manifest: Manifest, form: str, images: int, about: ShardInfo) -> None:
        self._folder, self._manifest, self._form, self._images, self._about = folder, manifest, form, images, about
        self._entries: list[ShardEntry] = []
        self._bytes = 0
        self._number = 0

    def add(self, outcome: Outcome) -> None:
        entry = ShardEntry(outcome.record, outcome.rows)
        self._entries.append(entry)
        self._bytes += entry.size
        if len(self._entries) >= self._images or self._bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        entries, self._entries, self._bytes = self._entries, [], 0  # as above
        if not entries:
            return
        # Numbers of shards that were lost are given again, so that what replaces them takes their place.
        while (name := shard_files.name(self._number, self._form)) in self._manifest.shards:
            self._number += 1
        file = self._folder.write(PurePath(name), shard_files.content(self._form, entries, self._about))
        sync([file.path, *_parents(file.path, self._folder)])
        shard = file_record(file, self._folder)
        self._manifest.append([{**entry.record, "shard": shard, "lines": len(entries)} for entry in entries])
        self._number += 1


def file_record(file: WrittenFile, folder: Folder) -> dict[str, Any]:
    """Return what a line of the manifest says of a file, so that a later attempt can tell whether it is whole."""
    return {"path": file.path.relative_to(folder.path).as_posix(), "bytes": file.size, "sha256": file.sha256}


def _parents(path: Path, folder: Folder) -> Iterable[Path]:
    """The folders that hold it, up to the output folder."""
    for parent in path.parents:
        yield parent
        if parent == folder.path:
            return


def sync(paths: Iterable[Path]) -> None:
    """Have files, and folders' lists of files, on the disk.

    Raises:
        OutputError: the disk did not take them.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise OutputError(f"{path}: has vanished or been replaced; start the run again") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be made safe on the disk: {error.strerror or error}") from None
