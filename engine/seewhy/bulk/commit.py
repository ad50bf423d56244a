"""Sync result files to the disk, and then append their lines to the manifest.

A line is written only after its files are on the disk, so that every recorded result survives a power failure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import PurePath
from typing import Any, Protocol

from seewhy._shared.background import Background
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import OutputError
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import Record
from seewhy.storage.output_folder import Folder, WrittenFile
from seewhy.tables import shard_files
from seewhy.tables.shard_files import ShardInfo
from seewhy.tables.table_columns import ShardEntry

# Syncing a file takes 0.1 to 5 ms. Other threads work meanwhile; only at the end of a job do all wait for it. Images
# whose files are not synced when a job is killed are explained again.
IMAGES_PER_SYNC = 16
"""Number of images after which their files are synced."""
SECONDS_PER_SYNC = 1.0
"""Time in seconds after which files are synced, even if there are fewer images."""
# File systems write together what several threads sync at the same time: 16 files on ext4 took 2 to 11 ms, not 70.
_SYNC_THREADS = 4
# A shard is written as soon as its maps have this size in bytes, even if it has fewer images than it may hold.
_SHARD_BYTES = 64 * 2**20


class ResultWriter(Protocol):
    """Records outcomes in order."""

    def add(self, outcome: Outcome) -> None:
        """Add an outcome. It is recorded now, or later together with others."""

    def flush(self) -> None:
        """Record all outcomes that were added."""


class FigureWriter:
    """Records images that have files of their own."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._records: list[Record] = []
        self._files: list[str] = []
        self._last_flush = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Add an outcome, and record all if enough images or time have passed since the last call of `flush`."""
        files = [file_record(file) for file in outcome.files]
        # Add the files before the record: an interrupt between the two must not leave a record with unsynced files.
        self._files += [file.name for file in outcome.files]
        self._records.append({**outcome.record, "files": files} if files else outcome.record)
        if len(self._records) >= IMAGES_PER_SYNC or time.monotonic() - self._last_flush >= SECONDS_PER_SYNC:
            self.flush()

    def flush(self) -> None:
        """Sync the files of all outcomes that were added, and append their lines to the manifest."""
        # Empty the lists first. If an error interrupts this call, the next attempt explains these images again; a
        # second flush of the same records could write lines twice.
        records, files = self._records, self._files
        self._records, self._files, self._last_flush = [], [], time.monotonic()
        self._folder.check()
        if files:
            sync(_with_parents(self._folder, files))
        if records:
            self._manifest.append(records)


class ShardWriter:
    """Records images that share files, called shards.

    Args:
        folder: The output folder.
        manifest: Its manifest.
        form: Format of the shards, one of `SHARD_FORMATS`.
        images: Maximum number of images in a shard.
        about: Information that each shard holds about the job.
    """

    def __init__(self, folder: Folder, manifest: Manifest, form: str, images: int, about: ShardInfo) -> None:
        self._folder, self._manifest, self._form, self._images, self._about = folder, manifest, form, images, about
        self._entries: list[ShardEntry] = []
        self._bytes = 0
        self._number = 0

    def add(self, outcome: Outcome) -> None:
        """Add an outcome, and write a shard if it is full."""
        entry = ShardEntry(outcome.record, outcome.rows)
        self._entries.append(entry)
        self._bytes += entry.size
        if len(self._entries) >= self._images or self._bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write a shard with all outcomes that were added, and append their lines to the manifest."""
        entries, self._entries, self._bytes = self._entries, [], 0  # first, as in FigureWriter.flush
        if not entries:
            return
        # The number of a shard that was lost is used again, so that the new shard replaces what is left of it.
        while (name := shard_files.name(self._number, self._form)) in self._manifest.shards:
            self._number += 1
        file = self._folder.write(PurePath(name), shard_files.content(self._form, entries, self._about))
        sync(_with_parents(self._folder, [file.name]))
        shard = file_record(file)
        self._manifest.append([{**entry.record, "shard": shard, "lines": len(entries)} for entry in entries])
        self._number += 1


def file_record(file: WrittenFile) -> dict[str, Any]:
    """Return the path, size and hash that a line of the manifest records for a file, so that it can be verified."""
    return {"path": file.name, "bytes": file.size, "sha256": file.sha256}


def _with_parents(folder: Folder, names: Iterable[str]) -> list[str]:
    """Return the paths of files, and of all folders above them up to and including the output folder."""
    found = dict.fromkeys(names)
    for name in list(found):
        while name := name.rpartition("/")[0]:
            found[name] = None
    return [*(f"{folder.path}/{name}" for name in found), str(folder.path)]


def sync(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Sync files, and the entries of folders, to the disk. The order is undefined.

    Args:
        paths: Files and folders.

    Raises:
        OutputError: If a path has disappeared, or cannot be synced.
    """
    paths = list(paths)
    remaining = iter(paths)  # the threads share it, because a task for each path takes as long as some calls of fsync

    def sync_remaining() -> None:
        for path in remaining:
            _sync(path)

    with ExitStack() as threads:  # waits for all of them, even if one fails
        for _ in range(min(_SYNC_THREADS, len(paths)) - 1):
            threads.callback(Background(sync_remaining, "seewhy-sync").result)
        sync_remaining()


def _sync(path: str | os.PathLike[str]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise OutputError(f"{path}: has vanished or been replaced; run the job again") from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be synced to the disk: {error.strerror or error}") from None
