"""The output folder: names that stay inside it, files that are whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from PIL import Image

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import ImageError, OutputError

QUALITY = 90
"""Of JPEG and WebP pictures, where nobody says otherwise."""

# Of overlays of 224x224, level 1 takes a quarter of the default level's time for files 14% larger, level 4 half of the
# time for 1%. At level 6, writing a picture may take a third of what ResNet-50 takes to explain it.
_PNG_LEVEL = 1


@dataclass(frozen=True)
class _Format:
    pillow: str
    """Pillow's name of it."""
    side: int
    """The most pixels that a picture of it may be wide or high."""
    options: Mapping[str, Any]
    has_quality: bool


_FORMATS = {
    "png": _Format("PNG", 2**31 - 1, {"compress_level": _PNG_LEVEL}, False),
    "jpg": _Format("JPEG", 65500, {}, True),  # libjpeg's limit; the format itself would hold 65535
    "webp": _Format("WEBP", 16383, {}, True),
}
FORMATS = tuple(_FORMATS)


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: `format` is one of FORMATS, and `quality` (1 to 100) is for those that lose something.

    Raises:
        OutputError: an unknown format, one that this Pillow cannot write, or a quality out of range or out of place.
    """

    format: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise OutputError(f"no picture format {brief(self.format)}; there are {', '.join(FORMATS)}")
        known = _FORMATS[self.format]
        Image.init()
        if known.pillow not in Image.SAVE:
            raise OutputError(f"this installation of Pillow cannot write {self.format}; choose another format")
        if self.quality is None:
            return
        if not known.has_quality:
            raise OutputError(
                f"{self.format} loses nothing and has no quality; leave the quality out, or choose jpg or webp"
            )
        if not is_integer(self.quality) or not 1 <= self.quality <= 100:
            raise OutputError(f"quality must be an integer from 1 to 100, not {brief(self.quality)}")
        object.__setattr__(self, "quality", int(self.quality))  # a NumPy integer could not be written to run.json

    def save(self, picture: Image.Image, file: IO[bytes]) -> None:
        known = _FORMATS[self.format]
        options = dict(known.options)
        if known.has_quality:
            options["quality"] = QUALITY if self.quality is None else self.quality
        picture.save(file, known.pillow, **options)

    def check(self, size: tuple[int, int], path: PurePath) -> None:
        """Raises:
        ImageError: a picture of this size cannot be written in this format.
        """
        side = _FORMATS[self.format].side
        if max(size) > side:
            raise ImageError(
                f"{path}: {size[0]}x{size[1]} pixels, but {self.format} takes at most {side} a side; choose png"
            )


PNG = Encoding()


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


def save_picture(
    folder: Folder, name: PurePath, suffix: str, picture: Image.Image, encoding: Encoding = PNG
) -> WrittenFile:
    """Write `picture` as NAME.SUFFIX.FORMAT.

    Raises:
        ImageError: the picture is too large for the format.
        OutputError: as `Folder.write`.
    """
    path = name.with_name(f"{name.name}.{suffix}.{encoding.format}")
    encoding.check(picture.size, folder.path / path)
    return folder.write(path, lambda file: encoding.save(picture, file))


def save_method(
    folder: Folder,
    name: PurePath,
    method: str,
    pictures: Iterable[tuple[int | None, Image.Image]],
    arrays: Mapping[str, Any] | None,
    encoding: Encoding = PNG,
) -> list[WrittenFile]:
    """Write one image's results of one method: NAME.METHOD.png, or NAME.METHOD.CLASS.png, and NAME.METHOD.npz.

    Args:
        folder: The output folder.
        name: Path of the results below it, without an extension.
        method: Name of the method.
        pictures: The pictures, each with its class index, or with None where the file name holds no class.
        arrays: Content of the npz file, as `Explanation.arrays_of` returns it; None writes no such file.
        encoding: Format and quality of the pictures.

    Raises:
        ImageError: If a picture is too large for the format.
        OutputError: As `Folder.write`.
    """
    written = []
    for target, picture in pictures:
        suffix = method if target is None else f"{method}.{target}"
        written.append(save_picture(folder, name, suffix, picture, encoding))
    if arrays is not None:
        written.append(folder.write(name.with_name(f"{name.name}.{method}.npz"), lambda file: np.savez(file, **arrays)))
    return written
