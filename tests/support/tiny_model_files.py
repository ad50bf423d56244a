"""Write model files of the tiny model with chosen changes, and return preprocessed pixels for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from seewhy import ModelFileError
from seewhy.contract import checksum
from seewhy.runtime.model_file import ModelFile
from support.tiny_model import Tiny, set_property


def pixels(count: int = 3, seed: int = 7) -> np.ndarray:
    """Return preprocessed pixels, float32 of shape (count, 3, 12, 16)."""
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 16)).astype(np.float32)


def write(path: Path, model: onnx.ModelProto) -> Path:
    """Write `model` with the correct digest and return the path."""
    path.write_bytes(checksum.seal(model.SerializeToString()))
    return path


def external(
    folder: Path,
    tiny: Tiny,
    location: str = "big.onnx.data",
    declared: str | None = "big.onnx.data",
    entries: Mapping[str, str | None] | None = None,
) -> Path:
    """Write the tiny model with conv2.weight in a second file, and return the path of the model file.

    `entries` replaces fields of the tensor's external data: location, offset, length.
    """
    model = tiny.proto()
    tensor = next(t for t in model.graph.initializer if t.name == "conv2.weight")
    data = b"\0" * 4096 + tensor.raw_data
    (folder / "big.onnx.data").write_bytes(data)
    fields = {"location": location, "offset": "4096", "length": str(len(tensor.raw_data)), **(entries or {})}
    for key, value in fields.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if declared is not None:
        set_property(model, "external_data", {"file": declared, "sha256": hashlib.sha256(data).hexdigest()})
    return write(folder / "big.onnx", model)


def refused(path: Path, words: str, verify: bool = True) -> None:
    """Assert that reading a model file raises a one-line error that matches `words`."""
    with pytest.raises(ModelFileError, match=words) as raised:
        ModelFile.read(path, verify)
    assert "\n" not in str(raised.value)
