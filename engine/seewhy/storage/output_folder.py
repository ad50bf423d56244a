"""The output folder: names that stay inside it, files that are whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
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
    size: int
    """In bytes."""
    sha256: str
    """64 hexadecimal digits."""


class Folder:
    """Writes files below one folder, and never over one of the inputs.

    Files are written under another name first: beside the last one or, with `temporary`, in a folder of that name,
    which is emptied and removed on entering and leaving the context.
    """

    def __init__(
        self, path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = (), temporary: str | None = None
    ) -> None:
        """Raises:
        OutputError: `path` is empty, or is not a folder and cannot be made one.
        """
        if not os.fspath(path):
            raise OutputError("the name of the output folder is empty; is a variable not set?")
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._root = self.path.resolve(strict=True)
            self._own = _identity(self._root)
        except FileExistsError:
            raise OutputError(f"{path}: not a folder; choose another output folder") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be made: {error.strerror or error}") from None
        # Of millions of inputs no more than a number is kept: sorted, eight bytes each.
        self._inputs = np.unique(np.fromiter((_number(os.path.realpath(name)) for name in inputs), np.uint64))
        self._temporary = None if temporary is None else self._root / temporary

    def __enter__(self) -> Folder:
        if self._temporary is not None:
            try:
                self._clear(self._temporary)
                self._temporary.mkdir()
            except OSError as error:
                raise OutputError(f"{self._temporary}: cannot be made: {error.strerror or error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            with suppress(OSError):  # the next run tries again
                self._clear(self._temporary)

    @staticmethod
    def _clear(folder: Path) -> None:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    def write(self, name: PurePath, content: Callable[[IO[bytes]], object], at_once: bool = False) -> WrittenFile:
        """Write a file that appears whole or not at all.

        Args:
            name: Its path below the folder.
            content: Called with an open file in memory, into which it writes the content. Encoders that write into a
                real file by themselves may take a full disk for success.
            at_once: Whether to have the file on the disk before it replaces an earlier one, in case of a power failure.

        Raises:
            OutputError: If it cannot be written, would lie outside the folder, or would replace an input.
        """
        path = self.path / name
        memory = io.BytesIO()
        try:
            content(memory)
            data = memory.getbuffer()
            self.check()
            # Looked at before folders are made: a link in the output folder may lead out of it.
            place = Path(os.path.realpath(path.parent))
            if place != self._root and self._root not in place.parents:
                raise OutputError(f"{path}: lies outside the output folder {self.path}")
            place.mkdir(parents=True, exist_ok=True)
            if self._is_input(place / path.name) or self._is_input(os.path.realpath(path)):
                raise OutputError(f"{path}: would replace an input image; choose another output folder")
            self._write(path, [data], at_once)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
        return WrittenFile(path, len(data), hashlib.sha256(data).hexdigest())

    def rewrite(self, name: PurePath, parts: Iterable[bytes]) -> None:
        """Replace a file of the folder's own by one with other content, part by part; it is on the disk on return.

        Raises:
            OutputError: If it cannot be written; the file then stays as it was.
        """
        path = self.path / name
        try:
            self.check()
            self._write(path, parts, at_once=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _is_input(self, path: str | os.PathLike[str]) -> bool:
        if not self._inputs.size:
            return False
        number = np.uint64(_number(path))
        place = int(np.searchsorted(self._inputs, number))
        return place < self._inputs.size and bool(self._inputs[place] == number)

    def check(self) -> None:
        """Raises:
        OutputError: the folder is no longer there. It would be made anew, with what came before missing.
        """
        if _identity(self._root) != self._own:
            raise OutputError(f"{self.path}: the output folder has vanished or been replaced; start the run again")

    def _write(self, path: Path, parts: Iterable[bytes | memoryview], at_once: bool) -> None:
        temporary = (self._temporary or path.parent) / f".seewhy-{secrets.token_hex(6)}.tmp"
        try:
            with temporary.open("xb") as file:
                file.writelines(parts)
                if at_once:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _number(path: str | os.PathLike[str]) -> int:
    """64 bits: that a result's is also one of a million inputs' happens in one of ten million runs of as many."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
