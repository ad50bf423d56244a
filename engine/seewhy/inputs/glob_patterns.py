"""Files that match a pattern such as `photos/**/*.jpg`, without gaps: a folder that cannot be listed is an error."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ANY_FOLDERS = "**"
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Match:
    """A path that matches a pattern, or a folder in which there may be matches that the system cannot list."""

    path: str
    is_too_long: bool = False
    """True for a folder whose path is too long for the system."""


def fixed_part(pattern: str) -> str:
    """The folders that a pattern begins with, up to the first that has a wildcard; they may be none."""
    fixed: list[str] = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else ""


def matches(pattern: str) -> Iterator[Match]:
    """Yield the paths that match, in no particular order.

    As in a shell, and in Python's `glob`: `*`, `?` and `[...]` stand for parts of one name, `**` for any number of
    folders, and none of them for a dot at the beginning.

    `**` does not follow links to folders, which could lead in circles; every other part does.

    Raises:
        OSError: If a folder cannot be listed, which `glob` would pass over.
    """
    base = fixed_part(pattern)
    parts = Path(pattern).parts[len(Path(base).parts) :]
    yield from _below(base, list(parts))


def _below(folder: str, parts: list[str]) -> Iterator[Match]:
    part, *rest = parts
    if part == _ANY_FOLDERS:
        yield from _any_depth(folder, rest or ["*"])
    elif not glob.has_magic(part):  # behind one that has wildcards
        path = os.path.join(folder, part)
        if _mode(path, follow=False) is not None:
            yield from _found(path, rest)
    else:
        fits = re.compile(fnmatch.translate(part)).match
        for entry in _listed(folder):
            if fits(entry.name) and entry.name.startswith(".") <= part.startswith("."):
                yield from _found(os.path.join(folder, entry.name), rest)


def _found(path: str, rest: list[str]) -> Iterator[Match]:
    if not rest:
        yield Match(path)
    elif _is_folder(path):
        if _is_too_long(path):
            yield Match(path, is_too_long=True)
        else:
            yield from _below(path, rest)


def _any_depth(folder: str, rest: list[str]) -> Iterator[Match]:
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        yield from _below(inside, rest)
        for entry in _listed(inside):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                path = os.path.join(inside, entry.name)
                if _is_too_long(path):
                    yield Match(path, is_too_long=True)
                else:
                    waiting.append(path)


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    if folder and not _is_folder(folder):  # nothing matches; one that is there and cannot be listed is an error
        return
    with os.scandir(folder or ".") as entries:
        yield from entries


def _is_folder(path: str) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _is_too_long(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _mode(path: str, follow: bool = True) -> int | None:
    """Return the `st_mode` of what is there, or None for nothing.

    Unlike `os.path`'s functions this raises an OSError where a folder is locked.
    """
    try:
        try:
            return os.stat(path, follow_symlinks=follow).st_mode
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
        # The path is too long, but its folder's path may not be.
        folder, name = os.path.split(path)
        descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=follow).st_mode
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise
