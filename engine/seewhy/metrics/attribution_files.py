"""Attributions of other tools: `DIR/METHOD/NAME.npz` with the array `attribution`.

The files are untrusted: nothing is unpickled, sizes are checked before anything is decompressed, and links that leave
the folder are refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from seewhy._shared.arrays import Floats
from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import first_line, printable
from seewhy.errors import ArgumentError
from seewhy.inputs.hidden_files import is_hidden
from seewhy.methods.registry import list_methods as registered_methods
from seewhy.methods.registry_base import NAME
from seewhy.metrics.base import NotMeasurable
from seewhy.metrics.references import REFERENCES

ARRAY = "attribution"
"""Name of the array in a file."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Headers of arrays have about 128 bytes. Other arrays may be in the file, but an archive of many small members would
# take much memory although it is small.
_MAX_HEADER_BYTES = 4096
_MAX_ARRAYS = 16
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class _OtherArray(Exception):
    """The file holds another array than the attributions of this image."""


def list_methods(folder: str | os.PathLike[str]) -> list[str]:
    """List the methods whose attributions a folder holds: the names of its subfolders.

    Args:
        folder: The folder. Files in it and hidden subfolders are skipped.

    Returns:
        Sorted names.

    Raises:
        ArgumentError: If the folder cannot be listed or has no subfolders, or the name of one is not that of a method,
            is taken, or leads out of the folder.
    """
    root = os.fspath(folder)
    try:
        with os.scandir(root) as entries:
            names = sorted(one.name for one in entries if one.is_dir() and not is_hidden(one.name))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentError(f"{printable(root)}: the folder of attributions cannot be listed: {reason}") from None
    if not names:
        raise ArgumentError(
            f"{printable(root)}: the folder of attributions has no subfolders; it must hold METHOD/NAME.npz"
        )
    taken = {*registered_methods(), *REFERENCES}
    for name in names:
        where = printable(os.path.join(root, name))
        if not NAME.fullmatch(name):
            raise ArgumentError(
                f"{where}: the name of a method consists of at most 40 lower-case letters, digits, + and -; rename the "
                f"folder"
            )
        if name in taken:
            raise ArgumentError(f"{where}: SeeWhy has a method or reference named {name}; rename the folder")
        _require_inside(root, os.path.join(root, name))
    return names


def read(folder: str | os.PathLike[str], method: str, name: str, shape: Sequence[int]) -> Floats:
    """Read the attributions of one image.

    Args:
        folder: As in `list_methods`.
        method: Name of the method.
        name: Path of the image's results, without extension.
        shape: Shape (Cin, H, W) of the model's input.

    Returns:
        Attributions, float32 of shape (H, W) or (Cin, H, W).

    Raises:
        NotMeasurable: If there is no file for the image, it is damaged, or its numbers are not finite.
        ArgumentError: If the file leads out of the folder, or holds an array of another dtype or shape.
    """
    path = os.path.join(os.fspath(folder), method, f"{name}.npz")
    if not os.path.lexists(path):
        raise NotMeasurable(f"the folder of attributions has no {printable(f'{method}/{name}.npz')}")
    _require_inside(os.fspath(folder), path)
    try:
        with open_regular(path) as file:
            return _read(file, tuple(shape))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise NotMeasurable(f"{printable(f'{method}/{name}.npz')} cannot be used: {reason}") from None
    except _OtherArray as error:
        raise ArgumentError(
            f"{printable(path)}: {error}; the file must hold {ARRAY}, float32 of "
            f"shape {tuple(shape[1:])} or {tuple(shape)}; convert others with array.astype(numpy.float32)"
        ) from None


def digest(folder: str | os.PathLike[str], methods: Sequence[str]) -> str:
    """Return a hash of the names, sizes and modification times of all files, which changes if one is replaced.

    Args:
        folder: As in `list_methods`.
        methods: Names of the methods.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArgumentError: If a folder cannot be listed.
    """
    hasher = hashlib.sha256()
    root = os.fspath(folder)
    try:
        for method in methods:
            for path in sorted(Path(root, method).rglob("*.npz")):
                found = path.stat()
                line = f"{path.relative_to(root).as_posix()}\0{found.st_size}\0{found.st_mtime_ns}\n"
                hasher.update(os.fsencode(line))
    except OSError as error:
        raise ArgumentError(f"{printable(root)}: the folder of attributions cannot be listed: {error}") from None
    return hasher.hexdigest()


def _require_inside(root: str, path: str) -> None:
    """Raise an ArgumentError if a path leads out of the folder, by a link or by `..`."""
    real, inside = os.path.realpath(root), os.path.realpath(path)
    if os.path.commonpath([real, inside]) != real:
        raise ArgumentError(
            f"{printable(path)}: leads out of the folder of attributions, to {printable(inside)}; copy the files there"
        )


def _read(file: IO[bytes], shape: tuple[int, ...]) -> Floats:
    """Read the array from an open npz file, or raise a ValueError that says what is wrong."""
    most = _MAX_ARRAYS * (4 * math.prod(shape) + _MAX_HEADER_BYTES)
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise _OtherArray(f"the file has {size} bytes, more than {_MAX_ARRAYS} arrays of this size")
    with zipfile.ZipFile(file) as archive:
        found = [one for one in archive.infolist() if one.filename == f"{ARRAY}.npy"]
        if len(found) != 1:
            names = ", ".join(one.filename.removesuffix(".npy") for one in archive.infolist()[:_MAX_ARRAYS])
            raise _OtherArray(f"{len(found)} arrays are named {ARRAY}; the arrays are {names or 'none'}")
        if found[0].compress_type not in _COMPRESSIONS:
            raise ValueError("the compression is not that of numpy.savez or numpy.savez_compressed")
        limit = 4 * math.prod(shape) + _MAX_HEADER_BYTES
        with archive.open(found[0]) as member:
            content = member.read(limit + 1)  # to its end, where its checksum is verified
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"the array has version {version} of the npy format")
    found_shape, fortran, dtype = _READERS[version](stream)
    if dtype != np.float32 or found_shape not in (shape, shape[1:]):
        raise _OtherArray(f"the array is {dtype} of shape {found_shape}")
    values = stream.read()
    if len(content) > limit or len(values) != 4 * math.prod(found_shape):
        raise ValueError("the array's length differs from its shape")
    result: Floats = np.frombuffer(values, np.float32).reshape(found_shape, order="F" if fortran else "C")
    if not np.isfinite(result).all():
        raise ValueError("the array holds NaN or infinity")
    return np.ascontiguousarray(result)
