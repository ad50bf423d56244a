"""Write the files that hold one image's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from seewhy.storage.image_encoding import PNG, Encoding
from seewhy.storage.output_folder import Folder, WrittenFile


def save_figure(
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


def save_figures(
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
        written.append(save_figure(folder, name, suffix, picture, encoding))
    if arrays is not None:
        written.append(folder.write(name.with_name(f"{name.name}.{method}.npz"), lambda file: np.savez(file, **arrays)))
    return written
