"""These tests need PyTorch; without it, they are skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from seewhy_export.sources.torchvision_import import import_torchvision  # noqa: E402

# Small networks gain nothing from more, and on a busy machine they wait for each other.
torch.set_num_threads(1)

# Before captum, pytorch_grad_cam or timm import it themselves.
import_torchvision()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a network once a session: (name, module, **options) -> path."""
    from seewhy_export import export

    folder = tmp_path_factory.mktemp("exported")

    def make(name: str, module: torch.nn.Module, **options: object) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            export(module, path, **options)
        return path

    return make
