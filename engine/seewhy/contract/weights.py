"""Weights of a model file: the file beside it that holds large ones, and the bytes that their hash covers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def data_path(path: Path) -> Path:
    """Return the path of the file that holds the large weights of a model file."""
    return path.with_name(f"{path.name}.data")


def hashed_header(name: str, kind: str, shape: Sequence[int]) -> bytes:
    """Return the bytes that `weights_sha256` covers before the values of a tensor.

    Args:
        name: Name of the initializer.
        kind: Its data type, as in `TensorProto.DataType`, such as `FLOAT`.
        shape: Its shape.

    Returns:
        The bytes. The little-endian values in row-major order follow them.
    """
    return f"{name}\0{kind}\0{list(shape)}\0".encode()
