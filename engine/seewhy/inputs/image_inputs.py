"""List the images of files, folders, patterns, lists and tar archives, each once and in a fixed order."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from seewhy._shared.regular_files import FileStamp, file_stamp
from seewhy._shared.temp_tables import explained, temporary
from seewhy._shared.text import short
from seewhy.contract.constants import LONGEST_TEXT
from seewhy.errors import ImageError, OutputError, SeewhyError
from seewhy.images.preprocessing import EncodedImage
from seewhy.inputs import tar_archives
from seewhy.inputs.image_listing import ListedImage, check_encoding, match_pattern, read_entry, real_path, walk_folder
from seewhy.inputs.image_lists import read_list
from seewhy.targets.class_targets import Target, read_target

# `place` sorts the images of one argument by the components of their paths. `real` is the resolved path, which finds
# images that are named twice. `id` and `target` hold the bytes of the list, which need not be UTF-8.
_SCHEMA = """
CREATE TABLE inputs (
    argument INTEGER, place BLOB, path BLOB, relative BLOB, real BLOB, id BLOB, target BLOB, is_tar INTEGER, error BLOB,
    PRIMARY KEY (argument, place)
) WITHOUT ROWID;
CREATE INDEX by_real ON inputs (real);
CREATE TABLE members (path BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID;
"""

_NO_PATH = PurePath()


@dataclass(frozen=True)
class ImageInput:
    """An image to explain."""

    path: str
    """What it is called: a file's path, or TAR#MEMBER."""
    id: str | None = None
    """The list's own name for it."""
    target: Target | None = None
    """The class that the list asks for."""
    content: bytes | None = None
    """Of a member of a tar archive."""
    error: SeewhyError | None = None
    """Why it cannot be read, where that is known already."""
    stamp: FileStamp | None = None
    """Stamp of the file, or of the archive that it is a member of, from before it was read. None for a file that was
    not read yet."""
    archive: str | None = None
    """Path of the archive that it is a member of."""
    relative_path: PurePath = _NO_PATH
    """Path that its results are named after, below the folder or the archive that was given."""

    @property
    def key(self) -> tuple[str, str | None, Target | None]:
        """What tells it from all others."""
        return self.path, self.id, self.target

    @property
    def file_name(self) -> str:
        """Its file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def image(self) -> Path | EncodedImage:
        """What `Explainer.explain` takes."""
        return Path(self.path) if self.content is None else EncodedImage(self.path, self.content)


class Inputs:
    """The images of all arguments. They are listed when this is made, and kept on disk."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        folder: str | os.PathLike[str],
        lists: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """List all images.

        Args:
            paths: image files, folders (all images below, sorted), patterns such as `photos/**/*.jpg`, and tar
                archives. What lies in the output folder is left out where that is inside one of these.
            folder: the output folder.
            lists: text files of one path a line, or CSV files with a column `path` and, if need be, `target` and `id`;
                `-` is standard input. Relative paths start at the current folder.

        Raises:
            ImageError: a folder or a pattern holds no images, a folder cannot be listed, or a list cannot be read.
            OutputError: the output folder is an input folder too, or results would lie in one, so that they would
                become inputs; it is no name that a folder can have; or the list of images does not fit on the disk.
        """
        self._store = temporary(_SCHEMA)
        self._out = _resolved(folder)
        self._roots: list[str] = []
        try:
            self._store.execute("BEGIN")
            for argument, path in enumerate(paths):
                self._add(argument, os.fspath(path))
            for argument, path in enumerate(lists, len(paths)):
                self._insert(argument, (read_entry(number, entry) for number, entry in enumerate(read_list(path))))
            self._store.execute("COMMIT")
            self._check_roots()
            self._count, self._tars = self._one("SELECT count(*), ifnull(sum(is_tar), 0) FROM inputs")
            self.relative = bool(self._one("SELECT count(*) FROM inputs WHERE substr(path, 1, 1) != X'2F'")[0])
        except sqlite3.OperationalError as error:
            raise explained(error) from None
        if not self._count:
            raise ImageError("no images given")

    @property
    def total(self) -> int | None:
        """How many images there are; None where archives are among them, which are not read ahead."""
        return None if self._tars else self._count

    def inside(self, folder: str | os.PathLike[str]) -> Iterator[Path]:
        """The files among them that lie below a folder, links followed."""
        root = os.fsencode(os.path.realpath(folder)) + b"/"
        for (real,) in self._store.execute("SELECT real FROM inputs WHERE substr(real, 1, ?) = ?", (len(root), root)):
            yield Path(os.fsdecode(real))

    def __iter__(self) -> Iterator[ImageInput]:
        """Read the images' names, and archives, in order. Threads may take turns; there is one iteration at a time."""
        try:
            self._store.execute("DELETE FROM members")
            # A file may be called as a member of an archive is here.
            self._store.execute(
                "INSERT INTO members SELECT DISTINCT path, 1 FROM inputs WHERE instr(path, X'23') AND NOT is_tar"
            )
            columns = "SELECT path, relative, id, target, is_tar, error FROM inputs ORDER BY argument, place"
            for path, relative, identity, target, is_tar, error in self._store.execute(columns):
                if is_tar:
                    yield from self._members(os.fsdecode(path))
                else:
                    yield replace(_input(path, identity, target, error), relative_path=PurePath(os.fsdecode(relative)))
        except sqlite3.OperationalError as error:
            raise explained(error) from None

    def files(self) -> Iterator[ImageInput]:
        """Yield the images that are files of their own, without their relative paths."""
        columns = "SELECT path, id, target FROM inputs WHERE NOT is_tar"
        for path, identity, target in self._store.execute(columns):
            yield _input(path, identity, target)

    def archives(self) -> Iterator[str]:
        """Yield the paths of the archives."""
        for (path,) in self._store.execute("SELECT path FROM inputs WHERE is_tar"):
            yield os.fsdecode(path)

    def relative_paths(self) -> Iterator[PurePath]:
        """Yield the paths that results are named after, of images that are files of their own, in order."""
        for (relative,) in self._store.execute("SELECT relative FROM inputs WHERE NOT is_tar ORDER BY argument, place"):
            yield PurePath(os.fsdecode(relative))

    def _members(self, archive: str) -> Iterator[ImageInput]:
        folder = PurePath(tar_archives.stem(archive))
        stamp = file_stamp(archive)
        for member in tar_archives.members(archive):
            path = self._called(archive if member.name is None else f"{archive}#{member.name}")
            # An absolute name would drop the archive's folder.
            relative = folder / ((member.name or "").lstrip("/") or "archive")
            yield ImageInput(
                path,
                content=member.content,
                error=member.error,
                stamp=stamp,
                archive=archive,
                relative_path=relative,
            )

    def _called(self, path: str) -> str:
        """The path, or PATH (2) and so on, which nothing before was called: an archive may hold a name twice."""
        key = os.fsencode(path)
        found = self._store.execute("SELECT count FROM members WHERE path = ?", (key,)).fetchone()
        count, name = (1, path) if found is None else (found[0] + 1, "")
        while not name:
            name = f"{path} ({count})"
            if self._store.execute("SELECT 1 FROM members WHERE path = ?", (os.fsencode(name),)).fetchone():
                count, name = count + 1, ""
        for used, times in ((os.fsencode(name), 1), (key, count)):
            self._store.execute("INSERT OR REPLACE INTO members VALUES (?, ?)", (used, times))
        return name

    def _check_roots(self) -> None:
        """Raises:
        OutputError: results would lie in an input folder, where the next run would find them.
        """
        for root in self._roots:
            inside = os.fsencode(os.path.relpath(root, self._out)) + b"/"
            row = self._store.execute(
                "SELECT 1 FROM inputs WHERE substr(relative, 1, ?) = ? LIMIT 1", (len(inside), inside)
            ).fetchone()
            if row is not None:
                raise OutputError(
                    f"{root}: results would lie in this input folder, below {self._out}; choose another output folder"
                )

    def _one(self, query: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._store.execute(query).fetchone()
        return row

    def _add(self, argument: int, path: str) -> None:
        check_encoding(ListedImage(b"", path, "", ""))
        if not path:
            raise ImageError("'' is not a name that a file can have")
        if len(os.fsencode(path)) > LONGEST_TEXT:
            size = len(os.fsencode(path))
            raise ImageError(f"{short(path)}: this path has {size} bytes, and {LONGEST_TEXT} are the most")
        if os.path.isdir(path):
            real = Path(os.path.realpath(path))
            if real == self._out:
                raise OutputError(
                    f"{self._out}: the output folder is an input folder too; choose another output folder"
                )
            if real.is_relative_to(self._out):
                self._roots.append(str(real))
            self._insert(argument, walk_folder(path, self._out), f"{path}: the folder holds no images")
        elif tar_archives.is_tar(path) and os.path.lexists(path):
            self._insert(argument, [ListedImage(b"", path, path, real_path(path), is_tar=True)])
        elif glob.has_magic(path) and not os.path.lexists(path):
            self._insert(argument, match_pattern(path, self._out), f"{path}: no image matches the pattern")
        else:
            self._insert(argument, [ListedImage(b"", path, os.path.basename(path), real_path(path))])

    def _insert(self, argument: int, rows: Iterable[ListedImage], none: str | None = None) -> None:
        """Add rows. Of those that name the same image the first stays: first in order, not in time."""
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007
            check_encoding(row)
            # Different numbers may be the same class: 3 and 03.
            target = None if row.target is None else os.fsencode(str(read_target(row.target)))
            named = (None if row.id is None else os.fsencode(row.id), target)
            found = self._store.execute(
                "SELECT argument, place FROM inputs WHERE real = ? AND id IS ? AND target IS ?",
                (os.fsencode(row.real), *named),
            ).fetchone()
            if found is not None:
                if found < (argument, row.sort_key):
                    continue
                self._store.execute("DELETE FROM inputs WHERE argument = ? AND place = ?", found)
            values = (argument, row.sort_key, *map(os.fsencode, (row.path, row.relative_path, row.real)))
            error = None if row.error is None else os.fsencode(row.error)
            self._store.execute(
                "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, *named, row.is_tar, error)
            )
        if none is not None and not count:
            raise ImageError(none)


def _input(path: bytes, identity: bytes | None, target: bytes | None, error: bytes | None = None) -> ImageInput:
    """Return the input for a file's row of the table."""
    asked = None if target is None else read_target(os.fsdecode(target))
    failed = None if error is None else ImageError(os.fsdecode(error))
    called = None if identity is None else os.fsdecode(identity)
    return ImageInput(os.fsdecode(path), id=called, target=asked, error=failed)


def _resolved(folder: str | os.PathLike[str]) -> Path:
    if not os.fspath(folder):  # the current folder, to `realpath`
        raise OutputError("the name of the output folder is empty; name a folder (an unset variable is empty, too)")
    try:
        return Path(os.path.realpath(folder))
    except (OSError, ValueError) as error:  # the current folder is gone; a zero in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{short(os.fspath(folder))}: cannot be an output folder: {reason}") from None
