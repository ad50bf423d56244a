"""Tests of `seewhy_export.capture.module_preparation`: compiled, scripted, half-precision and other modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export
from seewhy_export.capture.module_preparation import prepare
from support.exporting import module_hooks
from support.exporting.file_runs import SIZE, assert_close, images, run
from support.exporting.networks import live_weights


def simple() -> nn.Module:
    return live_weights(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    ).eval()


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile()
    return module


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        compiled_in_place,
        lambda module: nn.Sequential(torch.compile(module)),
        torch.jit.script,
        lambda module: torch.jit.trace(module, torch.zeros(2, 3, *SIZE)),
        nn.DataParallel,
    ],
    ids=["compiled", "compiled in place", "compiled inside", "scripted", "traced", "data parallel"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrapped_modules(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    module = simple()
    exact = simple().double()
    report = export(wrap(module), tmp_path / "model.onnx", image_size=SIZE)
    assert report.rectifiers.guided == 2
    assert_close(run(report.path, "logits"), exact(images().double()))
    expected = module_hooks.gradient(exact, images().double(), torch.tensor([0, 1, 2]))
    assert_close(run(report.path, "input_gradients"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_exported_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    module = simple().to(dtype)
    report = export(module, tmp_path / "model.onnx", image_size=SIZE)
    assert next(module.parameters()).dtype is dtype, "the module itself stays as it was"
    assert_close(run(report.path, "logits"), module.double()(images().double()))


class HalfPrecisionCode(nn.Module):
    def __init__(self, narrow: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.narrow = simple(), narrow

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.network(x))


def test_half_precision_inside_the_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="float16") as caught:
        export(HalfPrecisionCode(lambda logits: logits.half()), tmp_path / "model.onnx", image_size=SIZE)
    assert "\n" not in str(caught.value)


class BufferChanging(nn.Module):
    """Network that changes a buffer in each forward pass, on which its logits depend."""

    def __init__(self) -> None:
        super().__init__()
        self.network = simple()
        self.register_buffer("calls", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.network(x) * self.calls


def test_buffers_that_forward_changes_keep_their_value_at_export(tmp_path: Path) -> None:
    module = BufferChanging().eval()
    report = export(module, tmp_path / "model.onnx", image_size=SIZE)
    assert float(module.calls) == 1, "the module itself is not run"
    assert any("changes calls" in message for message in report.messages)
    exact = simple().double()(images().double()) * 2
    for _ in range(2):
        assert_close(run(report.path, "logits"), exact)


class CustomCode(nn.Module):
    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.code = simple(), code

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.code(x))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda x: x.view(2, 3, *SIZE), "fixes the batch size"),
        (lambda x: x * 2 if x.shape[0] == 2 else x, "fixes the batch size"),
        (lambda x: x * 2 if x.shape[0] == 1 else x, "depends on the batch size"),
        (lambda x: x - x.mean(0, keepdim=True), "depends on the other images of the batch"),
        (lambda x: x * 2 if x.sum() > 0 else x, "values of a tensor"),
        (lambda x: x * float(x.max()), "values of a tensor"),
    ],
)
def test_code_that_a_graph_cannot_hold_is_refused(code: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(CustomCode(code), tmp_path / "model.onnx", image_size=SIZE)
    assert "\n" not in str(caught.value)


def test_a_wrong_image_size_reports_the_modules_own_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"fails on float32 images of shape \(N, 3, 2, 2\): RuntimeError"):
        export(simple(), tmp_path / "model.onnx", image_size=(2, 2))


def test_the_copy_shares_no_memory() -> None:
    module = simple()
    traced = torch.jit.trace(module, torch.zeros(2, 3, *SIZE))
    for original in (module, traced):
        copied = prepare(original)
        pairs = zip(original.parameters(), copied.parameters(), strict=True)
        assert all(a.data_ptr() != b.data_ptr() and a.requires_grad and not b.requires_grad for a, b in pairs)
