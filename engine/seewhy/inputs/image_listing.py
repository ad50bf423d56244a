"""List the images of a folder, a pattern or a list as rows for the table of inputs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seewhy._shared.text import short
from seewhy.errors import ImageError
from seewhy.images.decoding import extensions
from seewhy.inputs import glob_patterns, tar_archives
from seewhy.inputs.image_lists import ListEntry


@dataclass(frozen=True)
class ListedImage:
    """An image or a tar archive, as the table of inputs holds it."""

    sort_key: bytes
    """Sort key among the images of one argument."""
    path: str
    """Path of the file, as the manifest calls it."""
    relative_path: str
    """Path from which the names of the results are made."""
    real: str
    """Path of the file itself, with links resolved. It tells whether two rows name the same image."""
    id: str | None = None
    target: str | None = None
    is_tar: bool = False
    error: str | None = None
    """Why it cannot be read, where that is known already."""


def walk_folder(root: str, avoid: Path) -> Iterator[ListedImage]:
    """List every image below a folder, in no particular order.

    Links to folders are not followed, since they could lead in circles. A folder whose path is too long for the system
    is one row with an error.

    Args:
        root: Path of the folder.
        avoid: Real path of the output folder, which is left out.

    Raises:
        ImageError: If a folder cannot be listed.
    """
    real = os.path.realpath(root)
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        folder = os.path.join(root, inside) if inside else root
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    relative = os.path.join(inside, entry.name)
                    own = os.path.join(real, relative)
                    if entry.is_dir(follow_symlinks=False):
                        if own != str(avoid):
                            waiting.append(relative)
                    elif _is_image(entry.name) and not os.path.isdir(entry.path):  # False for a link in circles, too
                        path = os.path.join(root, relative)
                        yield ListedImage(
                            _place(relative), path, relative, real_path(own) if entry.is_symlink() else own
                        )
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise ImageError(f"{folder}: cannot be listed: {error.strerror or error}") from None
            yield _too_long(_place(inside), folder, inside, os.path.join(real, inside))


def match_pattern(pattern: str, avoid: Path) -> Iterator[ListedImage]:
    """List every image and tar archive that matches a pattern, in no particular order.

    Names of results start behind the last folder of the pattern that has no wildcard. A folder whose path is too long
    for the system is one row with an error.

    Args:
        pattern: A pattern such as `photos/**/*.jpg`.
        avoid: Real path of the output folder, which is left out.

    Raises:
        ImageError: If a folder cannot be listed.
    """
    base = glob_patterns.fixed_part(pattern)
    try:
        for match in glob_patterns.matches(pattern):
            path = match.path
            real = real_path(path)
            if os.path.isdir(path) or Path(real).is_relative_to(avoid):
                continue
            relative = os.path.relpath(path, base) if base else path
            if match.is_too_long:
                yield _too_long(_place(path), path, relative, real)
            elif tar_archives.is_tar(path):
                yield ListedImage(_place(path), path, path, real, is_tar=True)
            elif _is_image(path):
                yield ListedImage(_place(path), path, relative, real)
    except OSError as error:
        raise ImageError(f"{error.filename or pattern}: cannot be listed: {error.strerror or error}") from None


def read_entry(number: int, entry: ListEntry) -> ListedImage:
    """Return the row for the list entry with this number. Archives are read unless the entry has a target or an id."""
    named = entry.target is not None or entry.id is not None
    is_tar = not named and tar_archives.is_tar(entry.path)
    place = number.to_bytes(8, "big")
    return ListedImage(place, entry.path, entry.path, real_path(entry.path), entry.id, entry.target, is_tar)


def real_path(path: str) -> str:
    """Return the path with links resolved, or the absolute path where that fails."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # links in circles, a path that no system takes: reading it says what is wrong
        return os.path.abspath(path)


def check_encoding(row: ListedImage) -> None:
    """Validate that this system can have such names: lists are UTF-8, and the system's names may not be.

    Raises:
        ImageError: If it cannot.
    """
    for text in (row.path, row.id or ""):
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            hint = "" if encoding == "utf-8" else f"; file names are {encoding} here, and UTF-8 with PYTHONUTF8=1"
            raise ImageError(f"{short(text)!r} is not a name that a file can have{hint}") from None


def _too_long(place: bytes, path: str, relative: str, real: str) -> ListedImage:
    """Return the row for a folder that cannot be listed because its path is too long for the system."""
    reason = (
        f"{path}: the path of this folder has {len(os.fsencode(path))} bytes, too many for this system, so its images "
        f"are left out; to explain them, change into a folder further down and give a relative path"
    )
    return ListedImage(place, path, relative, real, error=reason)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in extensions()


def _place(relative: str) -> bytes:
    """Return a sort key that orders paths by their components."""
    return os.fsencode(relative).replace(b"/", b"\0")
