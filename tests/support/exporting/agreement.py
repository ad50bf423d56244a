"""Compare an exported model file with its network run eagerly in float64."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from seewhy_export import export
from support.exporting.module_battery import SIZE


def check(module: nn.Module, path: Path, size: tuple[int, int] = SIZE, channels: int = 3) -> Counter[str]:
    """Export a module and compare its logits and input gradients with eager autograd.

    Returns:
        The number of rectifiers of each kind that the export reported.
    """
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
        # This allows a few hundred float32 rounding errors, as much as the exporter's own verification allows.
        assert np.linalg.norm(value - reference) <= 1e-4 * np.linalg.norm(reference)
    assert not [message for message in report.messages if "not tested" in message]
    return Counter(report.rectifiers.kinds)
