"""Tests of networks that are written in ways which once gave a wrong file, a traceback or a wrong error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.errors import ExportError
from seewhy.runtime.model_file import ModelFile
from seewhy_export import export
from support.exporting.agreement import check
from support.exporting.module_battery import SIZE
from support.exporting.networks import live_weights


class Written(nn.Module):
    """Two convolutions with `middle` between them, and `end`, which turns (N, 5, h, w) into logits (N, 5)."""

    def __init__(self, middle: Callable[[Tensor], Tensor], end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 5, 3)
        self.middle, self.end = middle, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.last(self.middle(self.stem(x))))


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def masked(x: Tensor) -> Tensor:
    return x * x.clone().gt_(0)


def copied(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y.copy_(x.sigmoid())
    return x * y


MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    # The gradient of a root is infinite at zero, where the rectifier passes no gradient.
    "root of a ReLU": lambda x: torch.sqrt(F.relu(x)),
    "power of a ReLU": lambda x: F.relu(x).pow(0.5) * 2,
    "lp_pool of zeros": lambda x: F.lp_pool2d(torch.cat([F.relu(x) * 0, x], 1), 2, 2)[:, 3:9],
    "hardtanh without an upper bound": lambda x: F.hardtanh(x, 0.0, float("inf")),
    "comparison in place": masked,
    "copy in place": copied,
}


@pytest.mark.parametrize("name", MIDDLES)
def test_middles_export_and_agree(name: str, tmp_path: Path) -> None:
    check(live_weights(Written(MIDDLES[name], mean)).eval(), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["root of a ReLU", "power of a ReLU"])
def test_no_gradient_is_infinite_before_a_root(name: str, tmp_path: Path) -> None:
    module = Written(MIDDLES[name], mean).eval()
    path = export(module, tmp_path / "model.onnx", image_size=SIZE, verify=False).path
    (gradients,) = onnxruntime.InferenceSession(path).run(
        ["guided_gradients"], {"images": np.zeros((1, 3, *SIZE), np.float32), "targets": np.array([0])}
    )
    assert np.isfinite(gradients).all()


ENDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax, flattened": (lambda x: F.adaptive_avg_pool2d(x, 1).softmax(1).flatten(1), "softmax"),
    "softmax, cast and squeezed": (lambda x: x.mean((2, 3), keepdim=True).softmax(-3).float()[:, :, 0, 0], "softmax"),
    "sigmoid, flattened": (lambda x: torch.sigmoid(F.adaptive_avg_pool2d(x, 2)).flatten(1), "sigmoid"),
    "softmax, viewed": (lambda x: mean(x).softmax(-1).view(-1, 5).clone(), "softmax"),
    "sigmoid, viewed": (lambda x: torch.sigmoid(x.mean((2, 3), keepdim=True)).view(-1, 5), "sigmoid"),
    "special softmax": (lambda x: torch.special.softmax(mean(x), 1), "softmax"),
    "squeezed": (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), "none"),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_keep_their_score_and_batch(name: str, tmp_path: Path) -> None:
    """A final score is removed whatever reshapes it, and a squeeze() keeps the batch dimension of a single image."""
    end, score = ENDS[name]
    module = live_weights(Written(F.relu, end)).eval()
    path = export(module, tmp_path / "model.onnx", image_size=SIZE, score="none").path
    assert ModelFile.read(path).metadata.score_kind == score
    images = torch.randn(2, 3, *SIZE)
    logits = seewhy.Explainer(path).explain(images.numpy()).logits
    single = seewhy.Explainer(path).explain(images[:1].numpy()).logits
    np.testing.assert_allclose(single, logits[:1], rtol=1e-5, atol=1e-6)
    expected = module(images)
    apply = {"softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid, "none": lambda x: x}[score]
    torch.testing.assert_close(apply(torch.from_numpy(logits)), expected.detach(), rtol=1e-4, atol=1e-5)
    if score != "none":
        assert not np.allclose(logits, expected.detach().numpy(), atol=1e-2)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.features(x))
        return features, self.head(features.mean((2, 3)))


def test_one_of_several_outputs_of_torchscript(tmp_path: Path) -> None:
    module = live_weights(Several()).eval()
    with pytest.warns(DeprecationWarning):
        script = torch.jit.script(module)
    report = export(script, tmp_path / "model.onnx", image_size=SIZE, head=1)
    images = torch.randn(2, 3, *SIZE)
    logits = seewhy.Explainer(report.path).explain(images.numpy()).logits
    torch.testing.assert_close(torch.from_numpy(logits), module(images)[1].detach(), rtol=1e-4, atol=1e-5)


def test_a_network_without_a_map_still_has_gradients(tmp_path: Path) -> None:
    module = live_weights(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 8), nn.ReLU(), nn.Linear(8, 5)))
    with pytest.raises(ExportError, match="export only the outputs logits, input_gradients and guided_gradients"):
        export(module.eval(), tmp_path / "model.onnx", image_size=SIZE, channels=3)
    outputs = ("logits", "input_gradients", "guided_gradients")
    report = export(module.eval(), tmp_path / "model.onnx", image_size=SIZE, channels=3, outputs=outputs)
    assert (report.layer, report.activations, report.outputs) == (None, None, outputs)
    images = torch.randn(2, 3, *SIZE)
    found = seewhy.Explainer(report.path).explain(images.numpy(), "backprop", target=[1, 2])
    exact = images.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module.double()(exact)[[0, 1], [1, 2]].sum(), exact)
    error = np.linalg.norm(found.attributions - gradient.numpy()) / np.linalg.norm(gradient.numpy())
    assert error <= 1e-4  # the tolerance of the export


def test_nan_is_reported_as_nan(tmp_path: Path) -> None:
    module = Written(lambda x: torch.sqrt(x), mean).eval()
    with pytest.raises(ExportError, match="the network itself computes NaN or infinity"):
        export(module, tmp_path / "model.onnx", image_size=SIZE)


def test_weights_are_not_copied_for_each_token(tmp_path: Path) -> None:
    """Tokens may be the first dimension, (T, N, D), as inside nn.MultiheadAttention."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mix, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 64), nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(self.stem(x).flatten(2).permute(2, 0, 1)).relu().mean(0))

    path = export(live_weights(Transposed()).eval(), tmp_path / "model.onnx", image_size=SIZE).path
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path))
    weight = 6 * 64
    for value in inferred.graph.value_info:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert not (len(sizes) == 3 and sizes[1] * sizes[2] == weight), value.name


def test_only_steep_operators_use_where(tmp_path: Path) -> None:
    """A Hardswish written as separate operators keeps the masks that stay in the blocked layout of onnxruntime."""
    module = live_weights(Written(lambda x: x * F.relu6(x + 3) / 6 + F.relu(x).pow(2), mean)).eval()
    path = export(module, tmp_path / "model.onnx", image_size=SIZE).path
    chosen = [node for node in onnx.load(path).graph.node if node.op_type == "Where"]
    assert len(chosen) == 1, "only the choice of the target uses Where"
