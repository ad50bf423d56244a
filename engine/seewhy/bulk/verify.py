"""Check the results in an output folder against its manifest, as `seewhy verify` does, without changing anything."""

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
from seewhy.storage.result_names import CLASS
from seewhy.tables import shard_files

_SCHEMA = """
CREATE TABLE named (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_METHOD = "|".join(map(re.escape, (*METHODS, "sheet")))
# Names that a job gives to its files: NAME.METHOD.png, NAME.METHOD.CLASS.png, NAME.METHOD.npz, and shards/NUMBER.npz.
_RESULT = re.compile(rf".+\.({_METHOD})({CLASS})?\.({'|'.join(FIGURE_FORMATS)}|npz)")
_SHARD = re.compile(rf"{shard_files.FOLDER}/\d+\.({'|'.join(SHARD_FORMATS)})")


@dataclass(frozen=True)
class Finding:
    """A file that differs from its record in the manifest, or that the manifest does not name."""

    path: Path
    problem: str
    """Description of the problem, which follows the path in messages."""


class Verification:
    """A check of the results of one output folder.

    Iterate over it to get the findings, then read the counts.

    Attributes:
        folder: The output folder.
        done: Number of images that are done according to the manifest.
        failed: Number of images that failed according to the manifest.
        files: Number of files that the manifest names.
        problems: Number of results that are missing or have another size or content, and of gaps in the manifest.
        unlisted: Number of files that have names of results but are not in the manifest.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Prepare the check of an output folder; nothing is read yet."""
        self.folder = Path(folder)
        self.done = self.failed = self.files = self.problems = self.unlisted = 0

    def __iter__(self) -> Iterator[Finding]:
        """Yield the problems in the order of the manifest; files that it does not name come last.

        Yields:
            A file and its problem.

        Raises:
            OutputError: If this is not the output folder of a job, or the manifest is damaged.
        """
        self.done = self.failed = self.files = self.problems = self.unlisted = 0
        facts = provenance.read(self.folder)
        if facts is None:
            raise OutputError(f"{self.folder}: has no {provenance.NAME}, so it is not the output folder of a job")
        path = self.folder / NAME
        with closing(temporary(_SCHEMA)) as store:
            try:
                with open_regular(path) as file:
                    yield from self._check_manifest(file, path, store)
            except OSError as error:
                raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from None
            except sqlite3.OperationalError as error:
                raise explained(error) from None
            counted, recorded = provenance.image_count(facts), self.done + self.failed
            if recorded < counted:
                self.problems += 1
                yield Finding(path, f"has lines for {recorded} images, but {provenance.NAME} counts {counted}")
            for name in self._result_files():
                if store.execute("SELECT 1 FROM named WHERE path = ?", (os.fsencode(name),)).fetchone() is None:
                    self.unlisted += 1
                    yield Finding(self.folder / name, f"is not named in {NAME}; a job that was killed may have left it")

    def _check_manifest(self, file: IO[bytes], path: Path, store: sqlite3.Connection) -> Iterator[Finding]:
        """Check the lines of the manifest and the files that they name."""
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
                wrong = self._problem_of(result)
                if wrong is not None:
                    self.problems += 1
                    yield Finding(self.folder / result.path, wrong)
        if end < os.fstat(file.fileno()).st_size:
            self.problems += 1
            yield Finding(path, "ends with an incomplete line; its images are explained again when the job resumes")

    def _problem_of(self, result: RecordedFile) -> str | None:
        """Return the problem with a file that a line names, as text that follows its path, or None."""
        try:
            wrong = problem(self.folder, result)
            if wrong is None:
                with open_regular(self.folder / result.path) as file:
                    if sha256_of(file) != result.sha256:
                        wrong = "has changed: its SHA-256 is not the recorded one"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return wrong

    def _result_files(self) -> Iterator[str]:
        """Yield the paths, relative to the folder, of all files below it whose names are those of results."""
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
