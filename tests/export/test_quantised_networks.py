"""Tests of exported networks in 8 bits: which layers are quantised, and that every method of maps is served.

Random weights say little about the accuracy of trained networks, so maps are only required to resemble those in
float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.methods.registry import METHODS
from seewhy.quantization import float_layers, quantize
from seewhy_export import export
from support.exporting.networks import ChannelsLast, Transformer, branches, live_weights

SIZE = (16, 24)


class Gated(nn.Module):
    """A depthwise network with SiLU, Hardswish and squeeze-and-excitation, like EfficientNet and MobileNet v3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(x))
        y = nn.functional.silu(self.depthwise(x))
        gate = self.excite(nn.functional.silu(self.squeeze(y.mean((2, 3), keepdim=True))))
        x = x + y * torch.sigmoid(gate)
        logits: Tensor = self.head(nn.functional.relu(self.last(x)).mean((2, 3)))
        return logits


class Dense(nn.Module):
    """Layers that read all earlier ones, with norms before the convolutions and average pools, like DenseNet.

    The second block joins branches with pools of overlapping windows, like Inception.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.grow = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.norm2, self.transition = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.left, self.right = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, (1, 3), padding=(0, 1))
        self.last = nn.Conv2d(24, 12, 1)
        self.head = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        relu, average = nn.functional.relu, nn.functional.avg_pool2d
        x = self.stem(x)
        x = torch.cat([x, self.grow(relu(self.norm(x)))], 1)
        x = average(self.transition(relu(self.norm2(x))), 2)
        x = torch.cat([self.left(average(x, 3, stride=1, padding=1)), relu(self.right(x))], 1)
        logits: Tensor = self.head(relu(self.last(x)).mean((2, 3)))
        return logits


class Scaled(nn.Module):
    """A depthwise convolution, a norm over channels, GELU and a scaled branch, like ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norm = nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale = nn.Parameter(torch.full((16,), 0.5))
        self.last = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(nn.functional.gelu(self.wide(y)))
        logits: Tensor = self.head(self.last(x + y.permute(0, 3, 1, 2)).relu().mean((2, 3)))
        return logits


NETWORKS = {
    "gated": (Gated, 5, 5, "QLinearGlobalAveragePool"),
    "branches": (branches, 6, 6, "QLinearConv"),
    "dense": (Dense, 6, 6, "QLinearAveragePool"),
    "scaled": (Scaled, 5, 3, "QGemm"),
    "transformer": (Transformer, 5, 1, "QGemm"),
    "channels last": (ChannelsLast, 4, 1, "QGemm"),
}
"""Function that makes the network, number of layers, how many of them are convolutions, and an operator that runs."""


class Stem(nn.Module):
    """A network that begins as MobileNet v2 does, or with one large convolution as ResNet does."""

    def __init__(self, separable: bool) -> None:
        super().__init__()
        small = (
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 8, 1),
        )
        self.stem = nn.Sequential(*small) if separable else nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.expand, self.last = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 40, 1)
        self.head = nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.last(nn.functional.relu(self.expand(self.stem(x)))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


RELATIVE = ("scorecam", "ablationcam")
"""Methods that compare scores of changed inputs, which nearly cancel in networks with random weights."""


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the measurement of speed, which takes a second for each file."""
    for place in (quantize, float_layers):
        measure = place.measure_drift
        monkeypatch.setattr(place, "measure_drift", lambda a, b, images, *_, run=measure: run(a, b, images, ()))


def optimised_operators(path: Path, folder: Path) -> list[str]:
    """Return the operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it warns that the optimised graph fits this CPU only
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_run_in_8_bits_and_maps_resemble_those_in_float32(name: str, tmp_path: Path) -> None:
    make, layers, convolutions, operator = NETWORKS[name]
    export(live_weights(make()).eval(), tmp_path / "model.onnx", SIZE)
    images = np.random.default_rng(0).normal(size=(40, 3, *SIZE)).astype(np.float32)
    found = quantize.quantize(tmp_path / "model.onnx", images, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    operators = optimised_operators(tmp_path / "small.onnx", tmp_path)
    assert (found.int8_layers, operators.count("QLinearConv")) == (layers, convolutions)
    assert operator in operators
    assert found.drift.correlation_median is not None and found.drift.correlation_median > 0.98

    float32, small = (seewhy.Explainer(tmp_path / file, ["cpu"]) for file in ("model.onnx", "small.onnx"))
    of_maps = [method for method in float32.methods if "input_gradients" not in METHODS[method].outputs]
    assert (
        {"gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "scorecam", "ablationcam"}
        <= set(small.methods)
        <= set(of_maps)
    )
    targets = float32.predict(images[:2]).logits.argsort(axis=1)[:, :-4:-1]
    for method in small.methods:
        expected = float32.explain(images[:2], method, target=targets).maps
        maps = small.explain(images[:2], method, target=targets).maps
        assert maps is not None and expected is not None and maps.shape == expected.shape
        assert np.isfinite(maps).all()
        if method not in RELATIVE:
            assert np.linalg.norm(maps - expected) < 0.3 * np.linalg.norm(expected), method
    assert small.explain(images[:2], "gradcam", top=3).targets.shape == (2, 3)


@pytest.mark.parametrize(("separable", "kept"), [(True, ("stem.0", "stem.1", "stem.2")), (False, ())])
def test_first_layers_of_few_products_stay_in_float32(separable: bool, kept: tuple[str, ...], tmp_path: Path) -> None:
    """They end where few values are converted to 8 bits: behind the projection, not behind the wider layers."""
    export(live_weights(Stem(separable)).eval(), tmp_path / "model.onnx", SIZE)
    images = np.random.default_rng(0).normal(size=(20, 3, *SIZE)).astype(np.float32)
    found = quantize.quantize(tmp_path / "model.onnx", images, tmp_path / "small.onnx", max_drift=1)
    assert found.kept_float == kept
    operators = optimised_operators(tmp_path / "small.onnx", tmp_path)
    assert operators.count("QLinearConv") == found.int8_layers == 2 + (not separable)
