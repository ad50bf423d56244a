"""Reading a checkpoint as data: nothing in the file is called."""

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

from seewhy._shared.regular_files import open_regular
from seewhy.errors import ExportError, MissingExtraError
from seewhy_export._shared.messages import one_line


def _numpy_functions() -> list[Any]:
    """What NumPy's arrays and scalars are pickled with, under the names that its releases gave it."""
    module = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    return [
        (getattr(module, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]


# Settings and scores that training programs store beside the weights: classes that hold data and run nothing.
_DATA: list[Any] = [
    argparse.Namespace,
    *((pathlib.PurePosixPath, f"pathlib.{name}PosixPath") for name in ("", "Pure", "_local.", "_local.Pure")),
    *((pathlib.PureWindowsPath, f"pathlib.{name}WindowsPath") for name in ("", "Pure", "_local.", "_local.Pure")),
    np.ndarray,
    np.dtype,
    *dict.fromkeys(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *_numpy_functions(),
]

_ARCHIVES = {
    "constants.pkl": "a TorchScript archive; save torch.jit.load(...).state_dict(), or give the scripted module itself "
    "to seewhy_export.export",
    "archive_format": "an archive of torch.export; save its state dict",
}
"""The file in a zip archive that tells what PyTorch program it is."""


def read_checkpoint(path: Path) -> Any:
    """What is in the file: tensors, nested in dicts beside numbers, strings and the like.

    Raises:
        ExportError: the file is missing, no checkpoint, or holds what only its own code can load.
        MissingExtraError: it is a safetensors file, and safetensors is not installed.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        if path.suffix.lower() == ".safetensors":  # its library takes nothing but a path
            return _read_safetensors(path)
        kind = _archive_kind(file)
        if kind is not None:
            raise ExportError(f"{path}: {kind}")
        return _unpickled(path, file)


def _unpickled(path: Path, file: IO[bytes]) -> Any:
    file.seek(0)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_DATA):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ExportError(f"{path}: {_refused(file, error)}") from error
    except Exception as error:
        raise ExportError(f"{path}: not a PyTorch checkpoint: {one_line(error)}") from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError('safetensors is not installed; run: pip install "seewhy[timm]"') from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ExportError(f"{path}: not a safetensors file: {one_line(error)}") from error


def _archive_kind(file: IO[bytes]) -> str | None:
    if not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            files = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    return next((kind for file, kind in _ARCHIVES.items() if file in files), None)


def _refused(file: IO[bytes], error: pickle.UnpicklingError) -> str:
    """What in the file only code could load."""
    file.seek(0)
    try:
        with torch.serialization.safe_globals(_DATA):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (ValueError, RuntimeError, pickle.UnpicklingError, EOFError):
        # The format before PyTorch 1.6; there the message names the first.
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    if any(name.startswith("torch.nn.") for name in names):
        own = next((name for name in names if not name.startswith("torch.")), names[0])
        return (
            f"holds a whole pickled network ({own}), and only that class's code can load it; load it where that code "
            f"is, and save model.state_dict()"
        )
    if not names:
        return "not a PyTorch checkpoint, or a damaged one"
    return (
        f"holds more than tensors and plain data: {', '.join(names[:3])}, and loading that could run its code; save "
        f"model.state_dict() instead"
    )
