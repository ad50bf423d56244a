"""Preparation of PyTorch for the tests that need it, which are skipped without PyTorch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from seewhy_export.sources.torchvision_import import import_torchvision  # noqa: E402

# Small networks gain nothing from more, and on a busy machine they wait for each other.
torch.set_num_threads(1)

# Before captum, pytorch_grad_cam or timm import it themselves.
import_torchvision()
