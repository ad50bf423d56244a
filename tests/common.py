"""What several test modules take: pixels for the tiny model, files of it with other parts, and the measure of error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from seewhy import digest


def pixels(count: int = 3, seed: int = 7) -> np.ndarray:
    """(count,3,12,16) preprocessed pixels."""
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 16)).astype(np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, both as one vector."""
    assert found.shape == expected.shape
    assert np.linalg.norm(expected) > 0
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def write(path: Path, model: onnx.ModelProto) -> Path:
    """Write `model` with the right digest."""
    path.write_bytes(digest.seal(model.SerializeToString()))
    return path
