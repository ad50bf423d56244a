"""The output folder: names that stay inside it, files that are whole or not there."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .errors import ImageError, OutputError
from .text import brief, safe_name

if TYPE_CHECKING:
    from .explanation import Explanation

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
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise OutputError(f"quality must be an integer from 1 to 100, not {brief(self.quality)}")

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


def plan(inputs: Sequence[PurePath]) -> list[PurePath]:
    """Return a different output name (a relative path without extension) for each input's relative path.

    The input's folders stay. Where names would collide, also on a system that takes no notice of case, the input's own
    extension is appended, and then a number. Every component is safe to print and to create.
    """
    parents = [PurePath(*map(safe_name, path.parent.parts)) for path in inputs]
    stems = [parent / safe_name(path.stem) for parent, path in zip(parents, inputs, strict=True)]
    names = [parent / safe_name(path.name) for parent, path in zip(parents, inputs, strict=True)]
    counts = Counter(map(_key, stems))
    planned = [stem if counts[_key(stem)] == 1 else name for stem, name in zip(stems, names, strict=True)]
    taken: set[str] = set()
    # Those that keep their plain name get it first; what collides even then is numbered.
    for i in sorted(range(len(inputs)), key=lambda i: counts[_key(stems[i])] > 1):
        number, base = 1, planned[i]
        while _key(planned[i]) in taken:
            number += 1
            planned[i] = base.with_name(f"{base.name}~{number}")
        taken.add(_key(planned[i]))
    return planned


def _key(path: PurePath) -> str:
    return str(path).casefold()


class Folder:
    """Writes files below one folder, and never over one of the inputs."""

    def __init__(self, path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Raises:
        OutputError: `path` is not a folder and cannot be made one.
        """
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._root = self.path.resolve(strict=True)
        except FileExistsError:
            raise OutputError(f"{path}: not a folder; choose another output folder") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be made: {error.strerror or error}") from None
        self._inputs = {Path(name).resolve() for name in inputs}

    def write(self, name: PurePath, content: Callable[[IO[bytes]], object]) -> Path:
        """Write a file at the relative path `name`: `content` gets it open. It appears whole or not at all.

        Raises:
            OutputError: it cannot be written, would lie outside the folder, or would replace an input.
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.parent.resolve(strict=True)
            if place != self._root and self._root not in place.parents:
                raise OutputError(f"{path}: lies outside the output folder {self.path}")
            if place / path.name in self._inputs or path.resolve() in self._inputs:
                raise OutputError(f"{path}: would replace an input image; choose another output folder")
            self._write(path, content)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
        return path

    @staticmethod
    def _write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
        temporary = path.with_name(f".seewhy-{secrets.token_hex(6)}.tmp")
        try:
            with temporary.open("xb") as file:
                content(file)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def save_picture(folder: Folder, name: PurePath, suffix: str, picture: Image.Image, encoding: Encoding = PNG) -> Path:
    """Write `picture` as NAME.SUFFIX.FORMAT, and return the path.

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
    result: Explanation,
    image: int,
    pictures: Sequence[Image.Image],
    raw: bool,
    encoding: Encoding = PNG,
) -> list[Path]:
    """Write one image's pictures of one method, NAME.METHOD.png or NAME.METHOD.CLASS.png, and its numbers if `raw`.

    The numbers, NAME.METHOD.npz, are `logits` (classes,), `target` () or (K,), `attributions`, `heatmap` and, for CAM
    methods, `maps`, with the shapes that `Explanation` gives them for one image; for integrated gradients
    `completeness` too. `options` are the method's as JSON text, where it has any.
    """
    nested = result.targets.ndim == 2
    written = []
    for target, picture in zip(result.targets_of(image), pictures, strict=True):
        suffix = f"{result.method}.{target}" if nested else result.method
        written.append(save_picture(folder, name, suffix, picture, encoding))
    if raw:
        arrays: dict[str, Any] = {
            "logits": result.logits[image],
            "target": np.asarray(result.targets[image]),
            "attributions": result.attributions[image],
            "heatmap": result.heatmaps[image],
        }
        if result.maps is not None:
            arrays["maps"] = result.maps[image]
        if result.completeness is not None:
            arrays["completeness"] = result.completeness[image]
        if result.options:
            arrays["options"] = np.array(json.dumps(dict(result.options)))
        path = name.with_name(f"{name.name}.{result.method}.npz")
        written.append(folder.write(path, lambda file: np.savez(file, **arrays)))
    return written
