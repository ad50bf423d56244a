"""Files that match a pattern such as `photos/**/*.jpg`, without gaps: a folder that cannot be listed is an error."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_ANY_FOLDERS = "**"
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def fixed_part(pattern: str) -> str:
    """The folders that a pattern begins with, up to the first that has a wildcard; they may be none."""
    fixed: list[str] = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else ""


def matches(pattern: str) -> Iterator[str]:
    """The paths that match, in no order. As in a shell, and in Python's `glob`: `*`, `?` and `[...]` stand for parts of
    one name, `**` for any number of folders, and none of them for a dot at the beginning.

    `**` does not follow links to folders, which could lead in circles; every other part does.

    Raises:
        OSError: a folder cannot be listed, which `glob` would pass over.
    """
    base = fixed_part(pattern)
    parts = Path(pattern).parts[len(Path(base).parts) :]
    yield from _below(base, list(parts))


def _below(folder: str, parts: list[str]) -> Iterator[str]:
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


def _found(path: str, rest: list[str]) -> Iterator[str]:
    if not rest:
        yield path
    elif _is_folder(path):
        yield from _below(path, rest)


def _any_depth(folder: str, rest: list[str]) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        yield from _below(inside, rest)
        for entry in _listed(inside):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                waiting.append(os.path.join(inside, entry.name))


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    if folder and not _is_folder(folder):  # nothing matches; one that is there and cannot be listed is an error
        return
    with os.scandir(folder or ".") as entries:
        yield from entries


def _is_folder(path: str) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: str, follow: bool = True) -> int | None:
    """What is there; None for nothing. Unlike `os.path`'s functions this takes a locked folder for no empty one."""
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise
