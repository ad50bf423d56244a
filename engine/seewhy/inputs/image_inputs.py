"""Images of files, folders, patterns, lists and tar archives, each listed once and in a fixed order."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from seewhy._shared.regular_files import FileStamp, file_stamp
from seewhy._shared.temp_tables import explained, temporary
from seewhy._shared.text import short
from seewhy.contract.constants import LONGEST_TEXT
from seewhy.errors import ImageError, OutputError, SeewhyError
from seewhy.images.preprocessing import EncodedImage
from seewhy.inputs import tar_archives
from seewhy.inputs.glob_patterns import fixed_prefix
from seewhy.inputs.image_listing import ListedImage, check_encoding, match_pattern, read_entry, real_path, walk_folder
from seewhy.inputs.image_lists import read_list
from seewhy.targets.class_targets import Target, read_target

# `place` sorts the images of one argument by the components of their paths. `real` is the path with links resolved; it
# identifies images that are given twice. `id` and `target` are bytes, because a list may not be UTF-8.
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
    """Name of the image: the path of the file, or TAR#MEMBER."""
    id: str | None = None
    """Identifier that the list gives for the image, or None."""
    target: Target | None = None
    """Target that the list gives for the image, or None."""
    content: bytes | None = None
    """Content of a member of a tar archive; None for a file."""
    error: SeewhyError | None = None
    """Why the image cannot be read, if that is already known."""
    stamp: FileStamp | None = None
    """Stamp of the file, or of the archive of a member, taken before it was read; None for a file that was not read
    yet."""
    archive: str | None = None
    """Path of the archive of a member; None for a file."""
    relative_path: PurePath = _NO_PATH
    """Path relative to the folder or archive that was given. Results are named after it."""

    @property
    def key(self) -> tuple[str, str | None, Target | None]:
        """Key that is unique among all images of a job."""
        return self.path, self.id, self.target

    @property
    def file_name(self) -> str:
        """Name of the file without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def image(self) -> Path | EncodedImage:
        """Image as `Explainer.explain` takes it."""
        return Path(self.path) if self.content is None else EncodedImage(self.path, self.content)


class Inputs:
    """The images of all arguments.

    They are listed when the object is created, and kept in a temporary database on the disk, so that millions of images
    need little memory.

    Attributes:
        relative: Whether some paths are relative to the current folder.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        folder: str | os.PathLike[str],
        lists: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """List all images.

        Args:
            paths: Image files, folders (all images below them, sorted), patterns such as `photos/**/*.jpg`, and tar
                archives. Files in the output folder are skipped.
            folder: The output folder.
            lists: Text files with one path per line, or CSV files with a column `path` and optional columns `target`
                and `id`; `-` is standard input. Relative paths start at the current folder.

        Raises:
            ImageError: If no images are given, a folder or pattern has no images, a folder cannot be listed, or a list
                cannot be read.
            OutputError: If results would be written among the images, an input folder holds results of a job, the
                output folder has an impossible name, or the disk has no room for the list of images.
        """
        self._store = temporary(_SCHEMA)
        self._out = _resolved(folder)
        self._roots: list[str] = []
        self._real_folder = lru_cache(1024)(real_path)  # a list names many images of one folder
        try:
            self._store.execute("BEGIN")
            for argument, path in enumerate(paths):
                self._add(argument, os.fspath(path))
            for argument, path in enumerate(lists, len(paths)):
                rows = (read_entry(number, entry) for number, entry in enumerate(read_list(path)))
                self._insert(argument, map(self._apart, rows))
            self._store.execute("COMMIT")
            self._check_roots()
            self._count, self._tars = self._fetch_one("SELECT count(*), ifnull(sum(is_tar), 0) FROM inputs")
            self.relative = bool(self._fetch_one("SELECT count(*) FROM inputs WHERE substr(path, 1, 1) != X'2F'")[0])
        except sqlite3.OperationalError as error:
            raise explained(error) from None
        if not self._count:
            raise ImageError("no images given")

    @property
    def total(self) -> int | None:
        """Number of images; None if there are archives, because their members are not counted in advance."""
        return None if self._tars else self._count

    def inside(self, folder: str | os.PathLike[str]) -> Iterator[Path]:
        """Yield the real paths of the image files that are below a folder, after links are resolved."""
        root = os.fsencode(os.path.realpath(folder)) + b"/"
        for (real,) in self._store.execute("SELECT real FROM inputs WHERE substr(real, 1, ?) = ?", (len(root), root)):
            yield Path(os.fsdecode(real))

    def __iter__(self) -> Generator[ImageInput, None, None]:
        """Yield the images in order, and read the archives.

        Several threads may take turns in one iteration, but only one iteration may run at a time.
        """
        try:
            self._store.execute("DELETE FROM members")
            # A file may have the same name as a member of an archive, TAR#MEMBER.
            self._store.execute(
                "INSERT INTO members SELECT DISTINCT path, 1 FROM inputs WHERE instr(path, X'23') AND NOT is_tar"
            )
            columns = "SELECT path, relative, id, target, is_tar, error FROM inputs ORDER BY argument, place"
            for path, relative, identity, target, is_tar, error in self._store.execute(columns):
                if is_tar:
                    yield from self._members(os.fsdecode(path))
                else:
                    yield _input(path, identity, target, error, PurePath(os.fsdecode(relative)))
        except sqlite3.OperationalError as error:
            raise explained(error) from None

    def files(self) -> Iterator[ImageInput]:
        """Yield the images that are not members of archives, without their relative paths."""
        columns = "SELECT path, id, target FROM inputs WHERE NOT is_tar"
        for path, identity, target in self._store.execute(columns):
            yield _input(path, identity, target)

    def archives(self) -> Iterator[str]:
        """Yield the paths of the archives."""
        for (path,) in self._store.execute("SELECT path FROM inputs WHERE is_tar"):
            yield os.fsdecode(path)

    def relative_paths(self) -> Iterator[PurePath]:
        """Yield the relative paths of the images that are not members of archives, in order."""
        for (relative,) in self._store.execute("SELECT relative FROM inputs WHERE NOT is_tar ORDER BY argument, place"):
            yield PurePath(os.fsdecode(relative))

    def _members(self, archive: str) -> Iterator[ImageInput]:
        folder = PurePath(tar_archives.stem(archive))
        stamp = file_stamp(archive)
        for member in tar_archives.members(archive):
            path = self._unique_path(archive if member.name is None else f"{archive}#{member.name}")
            # Joining an absolute name would drop the folder of the archive.
            relative = folder / ((member.name or "").lstrip("/") or "archive")
            yield ImageInput(
                path,
                content=member.content,
                error=member.error,
                stamp=stamp,
                archive=archive,
                relative_path=relative,
            )

    def _unique_path(self, path: str) -> str:
        """Return the path of a member, or PATH (2), PATH (3) ... if it is taken: an archive may hold a name twice."""
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
        """Raise an OutputError if results would be written into an input folder and become inputs."""
        for root in self._roots:
            inside = os.fsencode(os.path.relpath(root, self._out)) + b"/"
            row = self._store.execute(
                "SELECT 1 FROM inputs WHERE substr(relative, 1, ?) = ? LIMIT 1", (len(inside), inside)
            ).fetchone()
            if row is not None:
                raise OutputError(
                    f"{root}: results would be written into this input folder; choose another output folder than "
                    f"{self._out}"
                )

    def _fetch_one(self, query: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._store.execute(query).fetchone()
        return row

    def _add(self, argument: int, path: str) -> None:
        check_encoding(ListedImage(b"", path, "", ""))
        if not path:
            raise ImageError("'' is not a valid file name")
        if len(os.fsencode(path)) > LONGEST_TEXT:
            size = len(os.fsencode(path))
            raise ImageError(f"{short(path)}: the path has {size} bytes; the maximum is {LONGEST_TEXT}")
        if os.path.isdir(path):
            real = Path(os.path.realpath(path))
            if real == self._out:
                raise OutputError(
                    f"{self._out}: the output folder is also an input folder; choose another output folder"
                )
            if real.is_relative_to(self._out):
                self._roots.append(str(real))
            self._insert(argument, walk_folder(path, self._out), f"{path}: the folder holds no images")
        elif tar_archives.is_tar(path) and os.path.lexists(path):
            self._insert(argument, [ListedImage(b"", path, path, real_path(path), is_tar=True)])
        elif glob.has_magic(path) and not os.path.lexists(path):
            # As with a folder, matches are images even if the pattern begins inside the output folder.
            begins_inside = Path(os.path.realpath(fixed_prefix(path))).is_relative_to(self._out)
            rows = map(self._apart, match_pattern(path, None if begins_inside else self._out))
            self._insert(argument, rows, f"{path}: no image matches the pattern")
        else:
            self._insert(argument, [self._apart(ListedImage(b"", path, os.path.basename(path), real_path(path)))])

    def _apart(self, row: ListedImage) -> ListedImage:
        """Return the row, or raise an OutputError if results would be written into the folder of the image."""
        inside = os.path.dirname(row.relative_path)
        if ".." in inside.split("/"):  # results are named after the folders, but written below the output folder
            return row
        if self._real_folder(os.path.dirname(row.path)) == os.path.normpath(f"{self._out}/{inside}"):
            raise OutputError(
                f"{row.path}: results would be written beside this image, among the originals; choose another output "
                f"folder than {self._out}"
            )
        return row

    def _insert(self, argument: int, rows: Iterable[ListedImage], empty: str | None = None) -> None:
        """Add rows; fail with the message `empty` if there are none.

        If several rows name the same image, the one that comes first in the order of the arguments is kept.
        """
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007
            check_encoding(row)
            # Different texts may mean the same class, such as 3 and 03.
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
        if empty is not None and not count:
            raise ImageError(empty)


def _input(
    path: bytes, identity: bytes | None, target: bytes | None, error: bytes | None = None, relative: PurePath = _NO_PATH
) -> ImageInput:
    """Return the input for a row of the table."""
    return ImageInput(
        os.fsdecode(path),
        id=None if identity is None else os.fsdecode(identity),
        target=None if target is None else read_target(os.fsdecode(target)),
        error=None if error is None else ImageError(os.fsdecode(error)),
        relative_path=relative,
    )


def _resolved(folder: str | os.PathLike[str]) -> Path:
    if not os.fspath(folder):  # `realpath` would return the current folder
        raise OutputError("the name of the output folder is empty; is a variable not set?")
    try:
        return Path(os.path.realpath(folder))
    except (OSError, ValueError) as error:  # the current folder was deleted, or the name has a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{short(os.fspath(folder))}: cannot be an output folder: {reason}") from None
