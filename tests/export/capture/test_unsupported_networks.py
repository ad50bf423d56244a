"""Tests of `seewhy_export.capture.unsupported_networks`: networks that mix the images of a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export


class Code(nn.Module):
    def __init__(self, code: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.code, self.conv, self.head, self.after = code, nn.Conv2d(3, 4, 3), nn.Linear(4, 3), after
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.after(self.head(self.conv(self.code(x)).relu().mean((2, 3))))


def after(code: Callable[[Tensor], Tensor]) -> nn.Module:
    return Code(lambda x: x, code)


@pytest.mark.parametrize(
    "module",
    [
        # The mean of a large strided slice: nearly zero, so that its effect is far below 1 %.
        Code(lambda x: x - x[:, :, ::2, ::2].mean(0).mean()),
        Code(lambda x: x + 1e-6 * x.flatten(1).transpose(0, 1)[::2].sum(1).sum()),
        after(lambda y: y - y.mean(0)),
        after(lambda y: y[:, ::2].amax(0, keepdim=True)[:, :1] + y),
        after(lambda y: y / (1 + y.var(0, keepdim=True))),
        after(lambda y: y * y.softmax(0)),
        after(lambda y: y.cumsum(0)),
        after(lambda y: y + y.roll(1, 0)),
        after(lambda y: y + y.flip(0)),
        after(lambda y: y - y[:1]),
        after(lambda y: y - y[::2].mean(0, keepdim=True)),
        after(lambda y: y @ y.t() @ y),
    ],
)
def test_operations_over_the_batch(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="depends on the other images of the batch, so an image cannot be explained"):
        export(module.eval(), tmp_path / "model.onnx", image_size=(12, 12), verify=False)
    assert float(module.calls) == 0


def test_a_batch_norm_over_the_batch_is_named(tmp_path: Path) -> None:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)]
    module = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), *head)
    words = r"batch_norm.* in 0 \(BatchNorm2d\) uses the statistics of the batch, so an image's result depends"
    with pytest.raises(ExportError, match=words):
        export(module.eval(), tmp_path / "model.onnx", image_size=(12, 12))


@pytest.mark.parametrize(
    "module",
    [
        Code(lambda x: x - x.mean((1, 2, 3), keepdim=True)),
        Code(lambda x: x.mul_(2)),
        after(lambda y: y.sort(1).values),  # the last operator returns several tensors
        Code(lambda x: x.flatten(0, 1).cumsum(1).unflatten(0, (-1, 3))),
        # The derivative of a root is infinite at zero, and zero times infinity is NaN.
        Code(lambda x: x, lambda y: y + (y - y.detach()).sum(1, keepdim=True).relu().sqrt()),
    ],
)
def test_independent_images_are_accepted(module: nn.Module, tmp_path: Path) -> None:
    export(module.eval(), tmp_path / "model.onnx", image_size=(12, 12), outputs=[], verify=False)
