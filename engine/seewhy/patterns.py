"""Files that match a pattern such as `photos/**/*.jpg`, without gaps: a folder that cannot be listed is an error."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

_ANY_FOLDERS = "**"


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
        if os.path.lexists(path):
            yield from _found(path, rest)
    else:
        fits = re.compile(fnmatch.translate(part)).match
        for entry in _listed(folder):
            if fits(entry.name) and entry.name.startswith(".") <= part.startswith("."):
                yield from _found(os.path.join(folder, entry.name), rest)


def _found(path: str, rest: list[str]) -> Iterator[str]:
    if not rest:
        yield path
    elif os.path.isdir(path):
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
    if folder and not os.path.isdir(folder):  # nothing matches; one that is there and cannot be listed is an error
        return
    with os.scandir(folder or ".") as entries:
        yield from entries
