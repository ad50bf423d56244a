"""Check the results in an output folder against its manifest, as `seewhy verify` does. Nothing is changed."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from seewhy._shared.regular_files import open_regular, sha256_of
from seewhy._shared.temp_tables import explained, temporary
from seewhy.errors import OutputError
from seewhy.methods.registry import METHODS
from seewhy.storage import provenance
from seewhy.storage.format_names import FIGURE_FORMATS, SHARD_FORMATS
from seewhy.storage.manifest_lines import DONE, NAME, RecordedFile, damaged, groups, problem
from seewhy.tables import shard_files

_SCHEMA = """
CREATE TABLE named (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_METHOD = "|".join(map(re.escape, (*METHODS, "sheet")))
# What a job calls its files: NAME.METHOD.png, NAME.METHOD.CLASS.png, NAME.METHOD.npz, and shards by their numbers.
_RESULT = re.compile(rf".+\.({_METHOD})(\.\d+)?\.({'|'.join(FIGURE_FORMATS)}|npz)")
_SHARD = re.compile(rf"{shard_files.FOLDER}/\d+\.({'|'.join(SHARD_FORMATS)})")


@dataclass(frozen=True)
class Finding:
    """A file that is not as the manifest says, or that the manifest does not name."""

    path: Path
    what: str
    """Description that follows the path in messages."""


class Verification:
    """Checks the results of one output folder.

    Iterate over it for the findings, then read the counts.

    Attributes:
        folder: The output folder.
        done: Number of images that are done, by the manifest.
        failed: Number of images that failed, by the manifest.
        files: Number of files that the manifest names.
        problems: Number of findings about results that are missing, of another size or of other content, and about
            lines that are missing.
        unlisted: Number of findings about files that look like results and that the manifest does not name.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Name the output folder; nothing is read yet."""
        self.folder = Path(folder)
        self.done = self.failed = self.files = self.problems = self.unlisted = 0

    def __iter__(self) -> Iterator[Finding]:
        """Yield what is wrong, in the order of the manifest; files that it does not name come last.

        Raises:
            OutputError: If this is not the output folder of a job, or its manifest is damaged.
        """
        self.done = self.failed = self.files = self.problems = self.unlisted = 0
        facts = provenance.read(self.folder)
        if facts is None:
            raise OutputError(f"{self.folder}: no {provenance.NAME} in it, so it is not the output folder of a job")
        path = self.folder / NAME
        with closing(temporary(_SCHEMA)) as store:
            try:
                with open_regular(path) as file:
                    yield from self._listed(file, path, store)
            except OSError as error:
                raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from None
            except sqlite3.OperationalError as error:
                raise explained(error) from None
            counted, found = provenance.image_count(facts), self.done + self.failed
            if found < counted:
                self.problems += 1
                yield Finding(path, f"has lines for {found} images, but {provenance.NAME} counts {counted}")
            for name in self._found():
                if store.execute("SELECT 1 FROM named WHERE path = ?", (os.fsencode(name),)).fetchone() is None:
                    self.unlisted += 1
                    yield Finding(self.folder / name, f"is not named in {NAME}; a job that was killed may have left it")

    def _listed(self, file: IO[bytes], path: Path, store: sqlite3.Connection) -> Iterator[Finding]:
        """Check what the manifest names."""
        end = 0
        for group in groups(file, path):
            end = group.end
            for number, record in group.lines:
                key = json.dumps((record["path"], record["id"], record["target"]))
                if store.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,)).rowcount != 1:
                    raise damaged(path, number, "the image has a line already")
            done = sum(record["status"] == DONE for _, record in group.lines)
            self.done, self.failed = self.done + done, self.failed + len(group.lines) - done
            for result in group.results:
                self.files += 1
                store.execute("INSERT OR IGNORE INTO named VALUES (?)", (os.fsencode(result.path),))
                wrong = self._wrong(result)
                if wrong is not None:
                    self.problems += 1
                    yield Finding(self.folder / result.path, wrong)
        if end < os.fstat(file.fileno()).st_size:
            self.problems += 1
            yield Finding(path, "ends with an incomplete line; its images are explained again when the job goes on")

    def _wrong(self, result: RecordedFile) -> str | None:
        """Return what is wrong with a file that a line names, in words that follow its path; None if nothing is."""
        try:
            wrong = problem(self.folder, result)
            if wrong is None:
                with open_regular(self.folder / result.path) as file:
                    if sha256_of(file) != result.sha256:
                        wrong = "has changed: its SHA-256 is not the recorded one"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return wrong

    def _found(self) -> Iterator[str]:
        """Yield the files below the folder that are called as a job calls its results, relative to it."""
        waiting = [""]
        while waiting:
            inside = waiting.pop()
            try:
                with os.scandir(self.folder / inside) as entries:
                    for entry in entries:
                        relative = os.path.join(inside, entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(relative)
                        elif _RESULT.fullmatch(entry.name) or _SHARD.fullmatch(relative):
                            yield relative
            except OSError as error:
                raise OutputError(f"{self.folder / inside}: cannot be listed: {error.strerror or error}") from None
