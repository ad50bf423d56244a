"""Output folder: write complete files, and never outside the folder or over an input."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

import numpy as np

from seewhy.errors import OutputError


@dataclass(frozen=True)
class WrittenFile:
    """Path, size and SHA-256 of a file that was written."""

    path: Path
    """Path of the file."""
    name: str
    """Path below the output folder, with slashes."""
    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 as 64 hexadecimal digits."""


class Folder:
    """Folder for results, below which files are written, and never over an input.

    A file is first written under a temporary name and then renamed. Temporary files are beside the final file or, with
    `temporary`, in a folder of that name, which is emptied and removed when the context is entered and left.
    """

    def __init__(
        self, path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = (), temporary: str | None = None
    ) -> None:
        """Create the folder if necessary.

        Args:
            path: Path of the folder.
            inputs: Paths of the inputs, which must not be replaced.
            temporary: Name of the folder for temporary files, or None to write them beside the final files.

        Raises:
            OutputError: If `path` is empty or not a folder, or the folder cannot be created.
        """
        if not os.fspath(path):
            raise OutputError("the name of the output folder is empty; is a variable not set?")
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._root = os.path.realpath(self.path, strict=True)
            self._original_identity = _identity(self._root)
        except FileExistsError:
            raise OutputError(f"{path}: is not a folder; choose another output folder") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be created: {error.strerror or error}") from None
        # There may be millions of inputs, so only a hash of 8 bytes is kept for each, sorted.
        self._inputs = np.unique(np.fromiter((_path_hash(os.path.realpath(name)) for name in inputs), np.uint64))
        self._temporary = None if temporary is None else Path(self._root, temporary)

    def __enter__(self) -> Folder:
        if self._temporary is not None:
            try:
                self._clear(self._temporary)
                self._temporary.mkdir()
            except OSError as error:
                raise OutputError(f"{self._temporary}: cannot be created: {error.strerror or error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            with suppress(OSError):  # the next job tries again
                self._clear(self._temporary)

    @staticmethod
    def _clear(folder: Path) -> None:
        """Delete a folder and its files, or a link."""
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    def write(self, name: PurePath, content: Callable[[IO[bytes]], object], flush: bool = False) -> WrittenFile:
        """Write a file. It appears complete or not at all.

        Args:
            name: Path of the file below the folder.
            content: Function that writes the content to an open file in memory. Encoders that write to a file on disk
                themselves may not notice a full disk.
            flush: True to flush the file to disk before it replaces an earlier one, to survive a power failure.

        Returns:
            Path, size and hash of the file.

        Raises:
            OutputError: If the file cannot be written, would be outside the folder, or would replace an input.
        """
        path = self.path / name
        memory = io.BytesIO()
        try:
            content(memory)
            data = memory.getbuffer()
            self.check()
            resolved = f"{self._make_parent(path, name)}/{name.name}"
            if self._inputs.size and (self._is_input(resolved) or self._is_input(os.path.realpath(resolved))):
                raise OutputError(f"{path}: would replace an input image; choose another output folder")
            self._write(resolved, [data], flush)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
        return WrittenFile(path, name.as_posix(), len(data), hashlib.sha256(data).hexdigest())

    def rewrite(self, name: PurePath, parts: Iterable[bytes | memoryview]) -> None:
        """Replace the content of a file in the folder, and flush it to disk.

        Args:
            name: Path of the file below the folder.
            parts: The new content, in parts.

        Raises:
            OutputError: If the file cannot be written. It then stays unchanged.
        """
        path = self.path / name
        try:
            self.check()
            self._write(os.fspath(path), parts, flush=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _make_parent(self, path: Path, name: PurePath) -> str:
        """Create the folder of a file and return its path without links; it must not be outside the output folder."""
        resolved, folders = self._root, name.parts[:-1]
        for part in folders:
            resolved = f"{resolved}/{part}"
            if part in ("..", name.anchor) or not _is_folder(resolved):
                break
        else:
            return resolved
        # Check before creating folders, because a link in the output folder may lead out of it.
        resolved = os.path.realpath(path.parent)
        if resolved != self._root and Path(self._root) not in Path(resolved).parents:
            raise OutputError(f"{path}: is outside the output folder {self.path}")
        os.makedirs(resolved, exist_ok=True)
        return resolved

    def _is_input(self, path: str) -> bool:
        """Return True if a resolved path is that of an input."""
        number = np.uint64(_path_hash(path))
        index = int(np.searchsorted(self._inputs, number))
        return index < self._inputs.size and bool(self._inputs[index] == number)

    def check(self) -> None:
        """Check that the folder still exists. Otherwise it would be created again, without the earlier results.

        Raises:
            OutputError: If the folder was deleted or replaced.
        """
        if _identity(self._root) != self._original_identity:
            raise OutputError(f"{self.path}: the output folder was deleted or replaced; start the job again")

    def _write(self, path: str, parts: Iterable[bytes | memoryview], flush: bool) -> None:
        """Write a temporary file and rename it."""
        # A text, because making a path takes as long as a system call.
        temporary = f"{self._temporary or os.path.dirname(path)}/.seewhy-{secrets.token_hex(6)}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.writelines(parts)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _path_hash(path: str | os.PathLike[str]) -> int:
    """Return a hash of 64 bits.

    With a million inputs and a million results, a wrong match happens in about one of ten million jobs.
    """
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")


def _is_folder(path: str) -> bool:
    """Return True if a path is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _identity(folder: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, or None if it does not exist."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
