"""Find the files that match a pattern such as `photos/**/*.jpg`.

Unlike Python's `glob`, a folder that cannot be listed is an error, so that no image is missed.
"""

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
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Match:
    """A path that matches a pattern, or a folder that may hold matches but cannot be listed."""

    path: str
    is_too_long: bool = False
    """True for a folder that cannot be listed because its path is too long for the system."""


def fixed_prefix(pattern: str) -> str:
    """Return the folders at the start of a pattern, up to the first with a wildcard; "" if there are none."""
    fixed: list[str] = []
    for component in Path(pattern).parent.parts:
        if glob.has_magic(component):
            break
        fixed.append(component)
    return os.path.join(*fixed) if fixed else ""


def matches(pattern: str) -> Iterator[Match]:
    """Yield the paths that match, in no particular order.

    Patterns mean the same as in a shell and in Python's `glob`: `*`, `?` and `[...]` match within one name, `**`
    matches any number of folders, and none of them matches a dot at the start of a name.

    `**` does not follow links to folders, because they could form a loop. All other components do.

    Args:
        pattern: The pattern.

    Yields:
        The matches.

    Raises:
        OSError: If a folder cannot be listed. `glob` would skip the folder.
    """
    base = fixed_prefix(pattern)
    components = Path(pattern).parts[len(Path(base).parts) :]
    yield from _below(base, list(components))


def _below(folder: str, components: list[str]) -> Iterator[Match]:
    """Yield the paths below a folder that match the components."""
    component, *rest = components
    if component == _ANY_FOLDERS:
        yield from _any_depth(folder, rest or ["*"])
    elif not glob.has_magic(component):  # a plain name after a component with wildcards
        path = os.path.join(folder, component)
        if _mode(path, follow=False) is not None:
            yield from _continue(path, rest)
    else:
        is_match = re.compile(fnmatch.translate(component)).match
        for entry in _entries(folder):
            if is_match(entry.name) and entry.name.startswith(".") <= component.startswith("."):
                yield from _continue(os.path.join(folder, entry.name), rest)


def _continue(path: str, rest: list[str]) -> Iterator[Match]:
    """Yield a path that matches so far if no component is left, or else its matches for the other components."""
    if not rest:
        yield Match(path)
    elif _is_folder(path):
        if _is_too_long(path):
            yield Match(path, is_too_long=True)
        else:
            yield from _below(path, rest)


def _any_depth(folder: str, rest: list[str]) -> Iterator[Match]:
    """Yield the matches in a folder and in all folders below it."""
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        yield from _below(inside, rest)
        for entry in _entries(inside):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                path = os.path.join(inside, entry.name)
                if _is_too_long(path):
                    yield Match(path, is_too_long=True)
                else:
                    waiting.append(path)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, or nothing if it is not a folder."""
    if folder and not _is_folder(folder):
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
    """Return the `st_mode` of a path, or None if it does not exist.

    Unlike the functions of `os.path`, this raises an OSError if a folder above may not be searched.
    """
    try:
        try:
            return os.stat(path, follow_symlinks=follow).st_mode
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
        # The path is too long, but the path of its folder may be short enough.
        folder, name = os.path.split(path)
        descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=follow).st_mode
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NOT_FOUND:
            return None
        raise
