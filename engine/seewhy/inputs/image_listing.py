"""List the images of a folder, a pattern or a list as rows of the table of inputs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seewhy._shared.text import short
from seewhy.errors import ImageError, OutputError
from seewhy.images.decoding import listed_extensions
from seewhy.images.unsupported_formats import extension
from seewhy.inputs import glob_patterns, tar_archives
from seewhy.inputs.hidden_files import is_hidden
from seewhy.inputs.image_lists import ListEntry
from seewhy.storage import manifest_lines, provenance


@dataclass(frozen=True)
class ListedImage:
    """An image or a tar archive, as a row of the table of inputs."""

    sort_key: bytes
    """Sort key among the images of one argument."""
    path: str
    """Path of the file, as it is written to the manifest."""
    relative_path: str
    """Path that the results are named after."""
    real: str
    """Path of the file with links resolved. Rows with the same one name the same image."""
    id: str | None = None
    """Identifier that the list gives for the image."""
    target: str | None = None
    """Target that the list gives for the image, as text."""
    is_tar: bool = False
    """True if the file is read as an archive."""
    error: str | None = None
    """Why the file cannot be read, if that is already known."""


def walk_folder(root: str, avoid: Path) -> Iterator[ListedImage]:
    """List every image below a folder, in no particular order.

    Links to folders are not followed, because they could form a loop. A folder whose path is too long for the system
    becomes one row with an error. Hidden files and folders are skipped, unless `root` itself is hidden.

    Args:
        root: Path of the folder.
        avoid: Real path of the output folder, which is skipped.

    Yields:
        The images.

    Raises:
        ImageError: If a folder cannot be listed.
        OutputError: If a folder holds the results of a job.
    """
    real = os.path.realpath(root)
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        folder = os.path.join(root, inside) if inside else root
        refuse_results(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    relative = os.path.join(inside, entry.name)
                    own = os.path.join(real, relative)
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if own != str(avoid):
                            waiting.append(relative)
                    elif _is_image(entry.name) and not os.path.isdir(entry.path):  # a loop of links is no folder
                        path = os.path.join(root, relative)
                        yield ListedImage(
                            _place(relative), path, relative, real_path(own) if entry.is_symlink() else own
                        )
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise ImageError(f"{folder}: cannot be listed: {error.strerror or error}") from None
            yield _too_long(_place(inside), folder, inside, os.path.join(real, inside))


def match_pattern(pattern: str, avoid: Path | None) -> Iterator[ListedImage]:
    """List every image and tar archive that matches a pattern, in no particular order.

    Results are named after the path below the folders without wildcards at the start of the pattern. A folder whose
    path is too long for the system becomes one row with an error.

    Args:
        pattern: A pattern such as `photos/**/*.jpg`.
        avoid: Real path of the output folder, which is skipped, or None.

    Yields:
        The images and archives.

    Raises:
        ImageError: If a folder cannot be listed.
        OutputError: If a folder with matching files holds the results of a job.
    """
    base, folder = glob_patterns.fixed_prefix(pattern), None
    try:
        for match in glob_patterns.matches(pattern):
            path = match.path
            real = real_path(path)
            if os.path.isdir(path) or (avoid is not None and Path(real).is_relative_to(avoid)):
                continue
            if os.path.dirname(path) != folder:
                folder = os.path.dirname(path)
                refuse_results(folder)
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
    """Return the row for an entry of a list. An archive is read as an image if the entry has a target or an id."""
    named = entry.target is not None or entry.id is not None
    is_tar = not named and tar_archives.is_tar(entry.path)
    place = number.to_bytes(8, "big")
    return ListedImage(place, entry.path, entry.path, real_path(entry.path), entry.id, entry.target, is_tar)


def real_path(path: str) -> str:
    """Return the path with links resolved, or the absolute path if that fails."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # links that form a loop, or an impossible path; reading the file reports the error
        return os.path.abspath(path)


def check_encoding(row: ListedImage) -> None:
    """Validate that the system can encode the names. Lists are UTF-8, but the system's file names may not be.

    Args:
        row: The row to check.

    Raises:
        ImageError: If the system cannot encode a name.
    """
    for text in (row.path, row.id or ""):
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            hint = "" if encoding == "utf-8" else f"; file names are {encoding} here; set PYTHONUTF8=1 for UTF-8"
            raise ImageError(f"{short(text)!r} is not a valid file name{hint}") from None


def _too_long(place: bytes, path: str, relative: str, real: str) -> ListedImage:
    """Return the row for a folder that cannot be listed because its path is too long for the system."""
    reason = (
        f"{path}: the path of this folder has {len(os.fsencode(path))} bytes, which is too long for this system, so "
        f"its images are skipped; to explain them, change into a folder further down and give a relative path"
    )
    return ListedImage(place, path, relative, real, error=reason)


def refuse_results(folder: str) -> None:
    """Refuse a folder with the results of a job, because its figures would be explained as if they were images.

    Args:
        folder: Path of the folder.

    Raises:
        OutputError: If the folder has a manifest and a `run.json`.
    """
    if all(os.path.lexists(os.path.join(folder, name)) for name in (manifest_lines.NAME, provenance.NAME)):
        raise OutputError(
            f"{folder or '.'}: holds results of a job ({manifest_lines.NAME}), which would be explained as if they "
            f"were images; move the results elsewhere, or give only the folders of the images"
        )


def _is_image(name: str) -> bool:
    return extension(name) in listed_extensions()


def _place(relative: str) -> bytes:
    """Return a sort key that orders paths by their components."""
    return os.fsencode(relative).replace(b"/", b"\0")
