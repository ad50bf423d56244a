"""Exports of networks whose code fixes the batch size: converted for any number of images, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import support.exporting.torch_setup  # noqa: F401
from seewhy.errors import ExportError
from seewhy_export import export
from support.exporting.networks import live_weights


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU())
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.head = nn.Linear(16, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.layer2(self.stem(x))


class BatchOfOneInAView(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(1, 16, -1).mean(2))


class TokenForOneImage(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.token, self.body(x).flatten(2).transpose(1, 2)], 1).mean(1))


class BatchSizeAsANumber(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).reshape(int(x.shape[0]), 16, -1).mean(2))


class FirstImage(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0].mean((1, 2)))[None]


class LoopOverImages(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.head(self.body(image[None])[0].mean((1, 2))) for image in x])


class BatchOfFive(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(5, 16, -1).mean(2))


class FirstOfASplit(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.split(self.body(x).mean((2, 3)).view(1, 16), 1)[0])


class MinusTheBatchMean(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean((2, 3)).reshape(int(x.shape[0]), 16)
        return self.head(x - x.mean(0))


@pytest.mark.parametrize("network", [BatchOfOneInAView, TokenForOneImage, BatchSizeAsANumber])
def test_any_number_of_images(network: type[Base], tmp_path: Path) -> None:
    module = live_weights(network()).eval()
    report = export(module, tmp_path / "model.onnx", image_size=16, channels=3, layer="layer2")
    assert any("fixes the batch size, so it was converted" in message for message in report.messages)
    assert report.activations == (16, 6, 6)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    exact = torch.cat([module(image[None]) for image in images])
    (gradients,) = torch.autograd.grad(exact[:, 1].sum(), images)
    logits = exact.detach()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {"images": images.detach().numpy(), "targets": np.array([1, 1, 1])}
    found = session.run(["logits", "input_gradients"], feeds)
    # Sums of float32 in another order.
    np.testing.assert_allclose(found[0], logits, rtol=0, atol=1e-5 * float(logits.abs().max()))
    np.testing.assert_allclose(found[1], gradients, rtol=0, atol=1e-4 * float(gradients.abs().max()))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (FirstImage, r"returns \(1, 5\) for N images instead of \(N, classes\)"),
        (FirstOfASplit, "FirstOfASplit runs on one image, but fails on two with .*: its code fixes the batch size"),
        (LoopOverImages, "its code fixes the batch size, and a model file takes any number of images"),
        (BatchOfFive, "invalid for input of size"),
        (MinusTheBatchMean, "depends on the other images of the batch"),
    ],
)
def test_refused(network: type[Base], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(live_weights(network()).eval(), tmp_path / "model.onnx", image_size=16, channels=3)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_guided_scope_has_no_meaning_after_the_conversion(tmp_path: Path) -> None:
    module = live_weights(TokenForOneImage()).eval()
    with pytest.raises(ExportError, match="guided_scope cannot be used, because the network's code fixes"):
        export(module, tmp_path / "model.onnx", image_size=16, channels=3, guided_scope=["stem"])
