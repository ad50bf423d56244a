"""Write the result files of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from seewhy.errors import ImageError
from seewhy.storage.image_encoding import PNG, Encoding, Figure
from seewhy.storage.output_folder import Folder, WrittenFile


def save_figure(folder: Folder, name: PurePath, suffix: str, figure: Figure, encoding: Encoding = PNG) -> WrittenFile:
    """Write a figure as NAME.SUFFIX.FORMAT.

    Args:
        folder: The output folder.
        name: Path of the result below the folder, without extension.
        suffix: Text between name and format.
        figure: The figure, or the text of an SVG document.
        encoding: Format and quality.

    Returns:
        Path, size and hash of the file.

    Raises:
        ImageError: If the figure is too large for the format.
        OutputError: If the file cannot be written; see `Folder.write`.
    """
    path = name.with_name(f"{name.name}.{suffix}.{encoding.format}")
    if (problem := encoding.problem(figure)) is not None:
        raise ImageError(f"{folder.path / path}: {problem}")
    return folder.write(path, lambda file: encoding.save(figure, file))


def save_figures(
    folder: Folder,
    name: PurePath,
    method: str,
    figures: Iterable[tuple[str | None, Figure]],
    arrays: Mapping[str, Any] | None,
    encoding: Encoding = PNG,
) -> list[WrittenFile]:
    """Write the results of one method for one image: NAME.METHOD.png (.CLASS.png for several), and NAME.METHOD.npz.

    Args:
        folder: The output folder.
        name: Path of the results below the folder, without extension.
        method: Name of the method.
        figures: The figures, each with the part of the file name that names its class, or None for a single class.
        arrays: Content of the npz file, as `Explanation.arrays_of` returns it; None writes no such file.
        encoding: Format and quality of the figures.

    Returns:
        Path, size and hash of each file.

    Raises:
        ImageError: If a figure is too large for the format.
        OutputError: If a file cannot be written; see `Folder.write`.
    """
    written = []
    for class_, figure in figures:
        suffix = method if class_ is None else f"{method}.{class_}"
        written.append(save_figure(folder, name, suffix, figure, encoding))
    if arrays is not None:
        written.append(folder.write(name.with_name(f"{name.name}.{method}.npz"), lambda file: np.savez(file, **arrays)))
    return written
