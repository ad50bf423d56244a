"""Check the results in an output folder against its manifest, as `seewhy verify` does. Nothing is changed."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import provenance, shards
from .errors import OutputError
from .manifest_lines import DONE, NAME, Result, groups, problem
from .methods import METHODS
from .output import FORMATS
from .regular_files import open_regular
from .store import explained, temporary

_BLOCK = 1 << 20
_METHOD = "|".join(map(re.escape, (*METHODS, "sheet")))
# What a job calls its files: NAME.METHOD.png, NAME.METHOD.CLASS.png, NAME.METHOD.npz, and shards by their numbers.
_RESULT = re.compile(rf".+\.({_METHOD})(\.\d+)?\.({'|'.join(FORMATS)}|npz)")
_SHARD = re.compile(rf"{shards.FOLDER}/\d+\.({'|'.join(shards.FORMATS)})")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an output folder."""

    path: Path
    what: str
    """What is wrong, in words that follow the path."""


@dataclass
class Verification:
    """Checks the results of one output folder.

    Iterate over it for the problems, then read the counts.
    """

    folder: Path
    done: int = 0
    """Number of images that are done, by the manifest."""
    failed: int = 0
    """Number of images that failed, by the manifest."""
    files: int = 0
    """Number of files that the manifest names."""
    problems: int = 0
    """Number of files that are missing, of another size, or of other content, and of lines that are missing."""
    unlisted: int = 0
    """Number of files that look like results and that the manifest does not name."""

    def __iter__(self) -> Iterator[Problem]:
        """Yield what is wrong, in the order of the manifest; files that it does not name come last.

        Raises:
            OutputError: If this is not the output folder of a job, or its manifest is damaged.
        """
        self.done = self.failed = self.files = self.problems = self.unlisted = 0
        facts = provenance.read(self.folder)
        if facts is None:
            raise OutputError(f"{self.folder}: no {provenance.NAME} in it, so it is not the output folder of a job")
        path = self.folder / NAME
        with closing(temporary("CREATE TABLE named (path BLOB PRIMARY KEY) WITHOUT ROWID")) as store:
            try:
                with open_regular(path) as file:
                    yield from self._listed(file, path, store)
            except OSError as error:
                raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from None
            except sqlite3.OperationalError as error:
                raise explained(error) from None
            counted, found = provenance.counted(facts), self.done + self.failed
            if found < counted:
                self.problems += 1
                yield Problem(path, f"has lines for {found} images, but {provenance.NAME} counts {counted}")
            for name in self._found():
                if store.execute("SELECT 1 FROM named WHERE path = ?", (os.fsencode(name),)).fetchone() is None:
                    self.unlisted += 1
                    yield Problem(self.folder / name, f"is not named in {NAME}; a job that was killed may have left it")

    def _listed(self, file: IO[bytes], path: Path, store: sqlite3.Connection) -> Iterator[Problem]:
        """Check what the manifest names."""
        end = 0
        for group in groups(file, path):
            end = group.end
            done = sum(record["status"] == DONE for _, record in group.lines)
            self.done, self.failed = self.done + done, self.failed + len(group.lines) - done
            for result in group.results:
                self.files += 1
                store.execute("INSERT OR IGNORE INTO named VALUES (?)", (os.fsencode(result.path),))
                wrong = problem(self.folder, result) or self._changed(result)
                if wrong is not None:
                    self.problems += 1
                    yield Problem(self.folder / result.path, wrong)
        if end < os.fstat(file.fileno()).st_size:
            self.problems += 1
            yield Problem(path, "ends with an incomplete line; its images are explained again when the job goes on")

    def _changed(self, result: Result) -> str | None:
        hasher = hashlib.sha256()
        try:
            with open_regular(self.folder / result.path) as file:
                while block := file.read(_BLOCK):
                    hasher.update(block)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return None if hasher.hexdigest() == result.sha256 else "has changed: its SHA-256 is not the recorded one"

    def _found(self) -> Iterator[str]:
        """Yield the files below the folder that are called as a job calls its results."""

        def refuse(error: OSError) -> None:
            raise OutputError(f"{error.filename}: cannot be listed: {error.strerror or error}") from None

        for folder, _, names in os.walk(self.folder, onerror=refuse):
            for name in sorted(names):
                relative = os.path.relpath(os.path.join(folder, name), self.folder)
                if _RESULT.fullmatch(name) or _SHARD.fullmatch(relative):
                    yield relative
