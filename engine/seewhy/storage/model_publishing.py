"""Replace a model file and the weights file beside it, both or neither."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from seewhy._shared.regular_files import open_regular
from seewhy.contract.metadata import Metadata
from seewhy.contract.weights import data_path


def owns_weights(path: Path) -> bool:
    """Return whether a path is that of a model file whose metadata names `data_path(path)` as its weights file."""
    try:
        with open_regular(path) as file:
            model = onnx.ModelProto.FromString(file.read())
        properties = {entry.key: entry.value for entry in model.metadata_props}
        external = Metadata.from_properties(properties, str(path)).external_data
    except Exception:  # noqa: BLE001  the file is missing or damaged; protobuf's DecodeError has no stable place
        return False
    return external is not None and external["file"] == data_path(path).name


def publish(staged: Path, path: Path) -> None:
    """Move a written model and its weights file, if it has one, to their destination.

    A weights file of the model that is replaced is removed. If a step fails, the previous pair of files is restored.

    Args:
        staged: Path of the model file in a temporary folder beside the destination.
        path: Destination. If a file is at `data_path(path)`, it must be the weights file of the model there.

    Raises:
        OSError: If the destination cannot be written.
    """
    data, old_data, kept = data_path(staged), data_path(path), staged.with_name("previous.data")
    has_data = data.exists()
    try:
        if old_data.is_file():
            os.replace(old_data, kept)
        if has_data:
            os.replace(data, old_data)
        os.replace(staged, path)
    except BaseException:
        if staged.exists():  # The last step was not reached, so the old pair is still valid.
            if has_data and not data.exists():
                old_data.unlink(missing_ok=True)
            if kept.exists():
                os.replace(kept, old_data)
        raise
