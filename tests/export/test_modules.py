"""Any module, however it is written: it exports and agrees with PyTorch, or is refused in one line that says why.

Every export checks itself. Here the file is also held to the module run eagerly in float64, which knows nothing of
graphs.
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import modules
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from seewhy.errors import ExportError
from seewhy_export import export

ALL = {f"{table}: {name}": make for table, parts in modules.TABLES.items() for name, make in parts.items()}
QUICK = [name for name in ALL if name.partition(": ")[2] not in modules.HEAVY]
TOGETHER = 12
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def check(module: nn.Module, path: Path, size: tuple[int, int] = modules.SIZE, channels: int = 3) -> Counter[str]:
    """Export, and compare logits and input gradients with eager autograd; returns the rectifiers reported."""
    report = export(module, path, image_size=size)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(5))
    targets = torch.tensor([-1, 2, 4])
    feeds = {"images": images.numpy(), "targets": targets.numpy()}
    ours = session.run(["logits", "input_gradients"], feeds)
    exact = images.double().requires_grad_(True)
    with torch.enable_grad():
        torch.set_default_dtype(torch.float64)
        try:
            logits = copy.deepcopy(module).double()(exact)
        finally:
            torch.set_default_dtype(torch.float32)
    index = torch.where(targets < 0, logits.argmax(1), targets)
    (gradient,) = torch.autograd.grad(logits.gather(1, index[:, None]).sum(), exact)
    for value, reference in zip(ours, (logits.detach().numpy(), gradient.numpy()), strict=True):
        # A few hundred float32 roundings; the export's own measure allows as much.
        assert np.linalg.norm(value - reference) <= 1e-4 * np.linalg.norm(reference)
    assert not [message for message in report.messages if "not tested" in message]
    return Counter(report.rectifiers.kinds)


def expected(names: list[str]) -> Counter[str]:
    parts = [name.partition(": ")[2] for name in names]
    return sum((Counter(modules.RECTIFIERS.get(part, {})) for part in parts), Counter())


@pytest.mark.parametrize("start", range(0, len(QUICK), TOGETHER))
def test_parts_together_export_and_agree(start: int, tmp_path: Path) -> None:
    """A dozen in one network, since most of the time goes into what each export does once."""
    names = QUICK[start : start + TOGETHER]
    kinds = check(modules.network(*(ALL[name]() for name in names)), tmp_path / "model.onnx")
    assert kinds == expected(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_each_part_exports_and_agrees(name: str, tmp_path: Path) -> None:
    assert check(modules.network(ALL[name]()), tmp_path / "model.onnx") == expected([name])


@pytest.mark.parametrize("name", modules.REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = modules.REFUSED[name]
    with pytest.raises(ExportError, match=message) as caught:
        export(make(), tmp_path / "model.onnx", image_size=modules.SIZE)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (4, (13, 30)), (2, (31, 9))])
def test_other_channels_and_sizes(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    parts = [
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(modules.CHANNELS, 4, 3, 2),
        nn.AdaptiveAvgPool2d(7),
        nn.PReLU(),
        nn.SiLU(),
    ]
    check(modules.network(*parts, channels=channels, size=size), tmp_path / "model.onnx", size, channels)
