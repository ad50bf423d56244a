"""Tests of `seewhy_export.verification.parity`: a fault in the backward pass fails the check and leaves no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export
from seewhy_export.lowering import convolution, table
from seewhy_export.verification import parity
from support.exporting.networks import branches, torchvision_network

aten = torch.ops.aten


def sign_flipped_in_call(number: int) -> Callable[..., tuple]:
    """Return a convolution_backward that flips the sign in one call only."""
    calls = []

    def faulty(*args: object) -> tuple:
        calls.append(None)
        gradient, *rest = convolution.convolution_backward(*args)
        return (-gradient if len(calls) == number else gradient, *rest)

    return faulty


def pool_gradient_by_equality(
    gradient: Tensor, x: Tensor, kernel: list, stride: list, padding: list, dilation: list, ceil: bool, indices: Tensor
) -> Tensor:
    """Send max pooling's gradient to every element that equals the maximum: right on noise, wrong where values tie.

    It is exact for windows of 2x2 with stride 2.
    """
    pooled = x.reshape(x.shape[0], x.shape[1], x.shape[2] // 2, 2, x.shape[3] // 2, 2).amax((3, 5))
    spread = lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    return spread(gradient) * (x == spread(pooled)).to(x.dtype)


class PoolingNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.pool(self.conv(x))).relu().mean((2, 3)))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_sign_flip_in_one_branch_fails(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.LOWERINGS, aten.convolution_backward.default, sign_flipped_in_call(number))
    with pytest.raises(ExportError, match=r"disagrees with PyTorch.*input_gradients on (noise|picture)"):
        export(branches(), tmp_path / "model.onnx", image_size=(40, 40))
    assert list(tmp_path.iterdir()) == []


def test_a_sign_flip_in_a_resnet_shortcut_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.LOWERINGS, aten.convolution_backward.default, sign_flipped_in_call(4))
    with pytest.raises(ExportError, match="disagrees with PyTorch"):
        export(torchvision_network("resnet18"), tmp_path / "model.onnx", image_size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_an_equality_mask_for_max_pooling_fails_on_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = PoolingNetwork().eval()
    export(module, tmp_path / "right.onnx", image_size=(32, 32))
    monkeypatch.setitem(table.LOWERINGS, aten.max_pool2d_with_indices_backward.default, pool_gradient_by_equality)
    with pytest.raises(ExportError, match="disagrees with PyTorch.*input_gradients on picture"):
        export(module, tmp_path / "wrong.onnx", image_size=(32, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["right.onnx"]


def test_a_wrong_guided_rule_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy_export.backward import gradient_rules, joint_graph

    monkeypatch.setitem(joint_graph.RULES, "guided_gradients", gradient_rules.plain)
    with pytest.raises(ExportError, match="guided_gradients on noise"):
        export(branches(), tmp_path / "model.onnx", image_size=(40, 40))


def test_a_module_with_its_own_backward_pass_is_refused(tmp_path: Path) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return 2 * g

    class CustomGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = branches()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(Doubled.apply(x))

    for module in (CustomGradient(), nn.Sequential(CustomGradient(), nn.Softmax(1))):
        with pytest.raises(ExportError, match="differs from the module it was traced from: its gradient"):
            export(module.eval(), tmp_path / "model.onnx", image_size=(40, 40))
    assert list(tmp_path.iterdir()) == []


def test_a_zero_reference_is_neither_agreement_nor_disagreement() -> None:
    zero = {"error": None, "torch_float32": None, "draw": 1}
    assert parity.agrees(zero)
    assert parity.untested_outputs(
        {"a": {"noise": zero, "picture": zero}, "b": {"noise": zero, "picture": {"error": 0.0}}}
    ) == ["a"]


def test_the_scene_has_constant_areas() -> None:
    """Check that a third to 90 % of neighbouring pixels tie."""
    graph: Any = SimpleNamespace(channels=3, image_size=(64, 80))
    [scene] = parity.draw_input("picture", 1, graph, mean=[0.0], std=[1.0])
    assert ((scene >= 0) & (scene <= 1)).all()
    ties = (scene[:, :, 1:] == scene[:, :, :-1]).double().mean()
    assert 1 / 3 < ties < 0.9
