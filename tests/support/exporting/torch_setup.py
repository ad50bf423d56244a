"""Prepare PyTorch for the tests that need it, and skip them if PyTorch is not installed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from seewhy_export.sources.torchvision_import import import_torchvision  # noqa: E402

# More threads do not speed up small networks, and on a busy machine they wait for each other.
torch.set_num_threads(1)

# Import torchvision through this function before captum, pytorch_grad_cam or timm import it themselves.
import_torchvision()
