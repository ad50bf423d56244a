"""Read checkpoints as data, without running any code from the file."""

from __future__ import annotations

import argparse
import importlib
import pathlib
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from seewhy._shared.extras import missing_extra
from seewhy._shared.regular_files import open_regular
from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line


def _numpy_functions() -> list[Any]:
    """Return the functions that unpickle NumPy arrays and scalars, under their names in all NumPy releases."""
    module = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    return [
        (getattr(module, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]


# Classes of settings and scores that training programs store next to the weights. They hold data and run no code.
_DATA_CLASSES: list[Any] = [
    argparse.Namespace,
    *((pathlib.PurePosixPath, f"pathlib.{name}PosixPath") for name in ("", "Pure", "_local.", "_local.Pure")),
    *((pathlib.PureWindowsPath, f"pathlib.{name}WindowsPath") for name in ("", "Pure", "_local.", "_local.Pure")),
    np.ndarray,
    np.dtype,
    *dict.fromkeys(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *_numpy_functions(),
]

_ARCHIVES = {
    "constants.pkl": "is a TorchScript archive; save torch.jit.load(...).state_dict(), or give the scripted module "
    "itself to seewhy_export.export",
    "archive_format": "is a torch.export archive; save its state dict",
}
"""File name inside a zip archive -> kind of PyTorch program that the archive holds, and what to do instead."""


_OTHER_FILES = {
    b"version https://git-lfs": "is a Git LFS pointer; fetch the checkpoint itself with: git lfs pull",
    b"<!DOCTYPE": "is an HTML page; the download did not return the checkpoint",
    b"<html": "is an HTML page; the download did not return the checkpoint",
    b"\x89HDF": "is an HDF5 file, as Keras writes, and not a PyTorch checkpoint",
}
"""First bytes of a file that is no checkpoint -> what it is."""

_CHUNK = 2**20

_DAMAGED = "is not a PyTorch checkpoint, or is damaged or incomplete"


def read_checkpoint(path: Path) -> Any:
    """Read a file that `torch.save` wrote, or a safetensors file.

    Args:
        path: The checkpoint.

    Returns:
        The content of the file: most often dicts, nested, that hold tensors, numbers and strings.

    Raises:
        ExportError: If the file is missing, is not a checkpoint, or holds objects that only their own code can load.
        MissingExtraError: If it is a safetensors file, and safetensors is not installed.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        start = file.read(64)
        other = [kind for first, kind in _OTHER_FILES.items() if start.startswith(first)]
        if not start or other:
            raise ExportError(f"{path}: {other[0] if start else 'is empty'}")
        if path.suffix.lower() == ".safetensors":  # the library accepts only a path
            return _read_safetensors(path)
        kind = _archive_problem(file) if start.startswith(b"PK") else None
        if kind is not None:
            raise ExportError(f"{path}: {kind}")
        return _unpickled(path, file)


def _unpickled(path: Path, file: IO[bytes]) -> Any:
    """Return the content of a file that `torch.save` wrote."""
    file.seek(0)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_DATA_CLASSES):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ExportError(f"{path}: {_refusal(file, error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise errors of many types, whose texts do not help
        raise ExportError(f"{path}: {_DAMAGED}") from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra("safetensors is not installed", "timm") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ExportError(f"{path}: is not a safetensors file: {one_line(error)}") from error


def _archive_problem(file: IO[bytes]) -> str | None:
    """Return what a zip archive holds instead of a checkpoint, or that it is damaged, or None.

    PyTorch does not compare the files in the archive with their checksums. It leaves a checksum of zero if it was told
    to compute none.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            for member in archive.infolist():
                if member.CRC:
                    with archive.open(member) as content:
                        while content.read(_CHUNK):
                            pass
    except Exception:  # noqa: BLE001  damaged archives raise errors of many types
        return _DAMAGED
    return next((kind for name, kind in _ARCHIVES.items() if name in names), None)


def _refusal(file: IO[bytes], error: pickle.UnpicklingError) -> str:
    """Return the end of an error message that names the objects which only code could load."""
    file.seek(0)
    try:
        with torch.serialization.safe_globals(_DATA_CLASSES):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # noqa: BLE001  damaged files raise errors of many types
        # Files in the format before PyTorch 1.6: only the error message names an object, the first one.
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    if any(name.startswith("torch.nn.") for name in names):
        own = next((name for name in names if not name.startswith("torch.")), names[0])
        return (
            f"holds a whole pickled network ({own}), which only the code of that class can load; load it where that "
            f"code is installed, and save model.state_dict()"
        )
    if not names:
        return _DAMAGED
    return (
        f"holds more than tensors and plain data: {', '.join(names[:3])}; loading these could run code from the file, "
        f"so save model.state_dict() instead"
    )
