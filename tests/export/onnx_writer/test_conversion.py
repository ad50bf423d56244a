"""Tests of `seewhy_export.onnx_writer.conversion`: sums that onnxruntime would compute wrongly in several threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export
from support.exporting.agreement import check
from support.exporting.networks import live_weights


class Indexed(nn.Module):
    """A network that reads its map at repeated positions: along a grid, or at pairs of rows and columns."""

    def __init__(self, is_grid: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 64, 3, padding=1)
        self.head = nn.Linear(64, 5)
        generator = torch.Generator().manual_seed(0)
        rows, columns = torch.randint(0, 16, (2, 200), generator=generator)
        self.register_buffer("rows", rows[:, None] if is_grid else rows)
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x).relu()[:, :, self.rows, self.columns]
        return self.head((y * torch.arange(y.shape[-1]).cos()).flatten(2).mean(2))


class Small(nn.Module):
    """One convolution and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)


class IndexedPerImage(Small):
    """A network that also indexes the images of a batch, whose number is free, as `grid_sample` does."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x).relu()
        images = torch.arange(y.shape[0])[:, None, None]
        channels = torch.arange(8)[:, None]
        return self.head(y[images, channels, torch.tensor([0, 3, 3, -1]), torch.tensor([1, -2, -2, 5])].mean(2))


class Masked(Small):
    """A network that adds a number at positions that a mask selects."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        y = y.index_put((y > 0,), torch.tensor(1.0), accumulate=True)
        return self.head(y.relu().mean((2, 3)))


@pytest.mark.parametrize("is_grid", [True, False])
def test_sums_at_equal_indices_are_exact_in_several_threads(is_grid: bool, tmp_path: Path) -> None:
    """The export itself compares the gradients with PyTorch; here several threads give the same bytes each time."""
    export(live_weights(Indexed(is_grid)).eval(), tmp_path / "model.onnx", image_size=(16, 16))
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert any(node.op_type == "ScatterElements" for node in nodes) != is_grid
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    feeds = {"images": images, "targets": np.arange(4)}
    first, *others = (session.run(["input_gradients"], feeds)[0] for _ in range(20))
    assert all(np.array_equal(first, other) for other in others)


def test_sums_at_equal_indices_of_each_image_equal_pytorchs(tmp_path: Path) -> None:
    check(live_weights(IndexedPerImage()).eval(), tmp_path / "model.onnx")


def test_a_sum_at_masked_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="adds values at positions that a mask selects"):
        export(live_weights(Masked()).eval(), tmp_path / "model.onnx", image_size=(16, 16))
    assert list(tmp_path.iterdir()) == []
