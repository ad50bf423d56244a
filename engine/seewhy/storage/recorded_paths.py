"""Paths in a manifest, whose relative paths start at the folder in which the job began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class RecordedPaths:
    """Translation between the paths that are given now and those that a manifest records."""

    base: str | None
    """Folder that relative paths in the manifest start from, an absolute path; None if all its paths are absolute."""
    current: str
    """Folder that the paths given now start from; an absolute path."""

    def recorded(self, path: str, archive: str | None = None) -> str:
        """Return the path that a new line records.

        A relative path becomes relative to `base`, and so does an absolute path below `base`, so that the job survives
        a move of its folders. Other absolute paths stay as they are.

        Args:
            path: Path of an image as it is given now; TAR#MEMBER for a member of an archive.
            archive: Path of the archive of a member; None for a file.

        Returns:
            The path for the line.
        """
        if archive is not None:
            return self.recorded(archive) + path[len(archive) :]
        if self.base is None:
            return path
        absolute = self._absolute(path)
        if os.path.isabs(path) and not absolute.startswith(os.path.join(self.base, "")):
            return path
        return os.path.relpath(absolute, self.base)

    def forms(self, path: str, archive: str | None = None) -> Iterator[str]:
        """Yield all paths under which an existing line may record a file.

        Args:
            path: Path of an image as it is given now; TAR#MEMBER for a member of an archive.
            archive: Path of the archive of a member; None for a file.

        Yields:
            The paths, the most likely first.
        """
        if archive is not None:
            yield from (form + path[len(archive) :] for form in self.forms(archive))
            return
        if self.base == self.current or os.path.isabs(path):
            yield path
        absolute = self._absolute(path)
        if self.base is not None:
            yield os.path.relpath(absolute, self.base)
        yield absolute

    def _absolute(self, path: str) -> str:
        """Return the absolute path without dots. Links stay, but `..` behind a link means the parent of its target."""
        head, up, rest = os.path.join(self.current, path).rpartition("/../")
        return os.path.normpath(os.path.join(os.path.realpath(head + up), rest) if up else rest)
