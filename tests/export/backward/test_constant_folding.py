"""Tests of `seewhy_export.backward.constant_folding` and of batch norms folded into convolutions."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from seewhy_export import export
from seewhy_export.backward.joint_graph import JointGraph, build_joint
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import target_layer
from support.exporting.networks import live_weights

OUTPUTS = ["logits", "activations", "gradients", "input_gradients", "guided_gradients"]


def network(*layers: nn.Module) -> nn.Module:
    return live_weights(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))).eval()


def joint(module: nn.Module, layer: str | None = None) -> JointGraph:
    forward = trace_forward(prepare(module), (12, 12), 3, layer).to(torch.float64)
    return build_joint(forward, target_layer(forward, layer), OUTPUTS)


def targets_of(graph: JointGraph) -> list[str]:
    return [str(node.target) for node in graph.graph_module.graph.nodes if node.op == "call_function"]


def check(module: nn.Module, layer: str | None = None) -> JointGraph:
    """Compare the graph's gradient with autograd's on the module itself, in float64."""
    graph = joint(module, layer)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = graph.run(images, torch.tensor([1, 4]))
    images.requires_grad_(True)
    logits = module.double()(images)
    expected = torch.autograd.grad(logits[0, 1] + logits[1, 4], images)[0]
    torch.testing.assert_close(values["logits"], logits.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(values["input_gradients"], expected, rtol=1e-10, atol=1e-10)
    return graph


def norms(graph: JointGraph) -> int:
    return sum("batch_norm" in target for target in targets_of(graph))


def test_a_norm_after_a_convolution_leaves_no_operator() -> None:
    graph = check(network(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)))
    assert norms(graph) == 0
    assert not any("rsqrt" in target for target in targets_of(graph))
    # Its weights and statistics are gone too. The rest are two convolutions, the linear layer, and constants.
    assert not any("running" in name for name in graph.weights)


def test_a_norm_without_weights_is_folded_into_a_convolution_with_bias() -> None:
    assert norms(check(network(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8, affine=False), nn.ReLU()))) == 0


def test_a_convolution_with_another_reader_keeps_its_norm() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.convolution(x)
            return torch.relu(self.norm(before)) + before

    assert norms(check(network(Beside()))) == 1


def test_a_convolution_that_is_the_target_layer_keeps_its_norm() -> None:
    graph = check(network(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), layer="0")
    assert norms(graph) == 1


def test_a_convolution_with_two_norms_is_folded_into_neither() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.one, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.convolution(x)
            return torch.relu(self.one(before)) + torch.relu(self.other(before))

    assert norms(check(network(Shared()))) == 2


def test_a_weight_shared_by_two_convolutions_is_folded_for_each() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.convolution = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
            self.one, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.one(self.convolution(self.first(x))))
            return torch.relu(self.other(self.convolution(x)))

    assert norms(check(network(Reused()))) == 0


def test_a_large_rearranged_constant_is_stored_once(tmp_path: Path) -> None:
    module = network(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1))
    export(module, tmp_path / "m.onnx", image_size=(12, 12), verify=False)
    stored = sum(numpy_helper.to_array(t).nbytes for t in onnx.load(tmp_path / "m.onnx").graph.initializer)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    # Besides the weights, the file holds kernels of ones and shapes. The reversed kernels alone would take 150 kB.
    assert stored < weights + 20_000


def test_constants_are_rounded_once() -> None:
    """Compare with w gamma / sqrt(variance + eps) in float64, to half a unit in the last place."""
    module = network(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    forward = trace_forward(prepare(module), (12, 12), 3, None)
    graph = build_joint(forward, target_layer(forward, None), OUTPUTS)
    convolution, norm = module[0], module[1]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    expected = (convolution.weight.double() * scale.reshape(-1, 1, 1, 1)).float()
    # Rounding twice in float64 may end on the other side of a tie in float32.
    assert any(
        w.shape == expected.shape and torch.allclose(w, expected, rtol=6e-8, atol=0) for w in graph.weights.values()
    )
