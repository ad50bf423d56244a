"""Three images, the outputs of a model file for them, and their comparison with PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

SIZE = (16, 20)
"""(H, W) of the images in pixels."""


def images() -> Tensor:
    """Return float32 images (3, 3, H, W) of noise."""
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def run(path: Path, name: str) -> np.ndarray:
    """Return an output of a model file for these images and the targets 0, 1 and 2."""
    targets = np.array([0, 1, 2])
    (value,) = onnxruntime.InferenceSession(path).run([name], {"images": images().numpy(), "targets": targets})
    return value


def assert_close(ours: np.ndarray, exact: Tensor) -> None:
    """Check that the relative L2 error is at most 1e-5, as float32 sums in another order give."""
    wanted = exact.detach().double().numpy()
    assert ours.shape == wanted.shape
    assert np.linalg.norm(ours - wanted) <= 1e-5 * np.linalg.norm(wanted)
