"""Tests of `seewhy_export.target_layer.tensor_layout`: tokens and channels-last maps become (N, C, h, w)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ExportError
from seewhy.runtime.model_file import ModelFile
from seewhy_export import export
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import TargetLayer, target_layer
from support.exporting import module_hooks
from support.exporting.networks import ChannelsLast, Transformer, live_weights

SIZE = (16, 24)


def choose(module: nn.Module, layer: str | None = None) -> TargetLayer:
    return target_layer(trace_forward(prepare(module), SIZE, 3, layer), layer)


def as_map(value: Tensor, form: str, dropped: int, size: tuple[int, int]) -> Tensor:
    """Convert a layer's output to `activations` as the file contract defines them, position by position."""
    if form == "channels-last":
        rows = [[value[:, i, j] for j in range(size[1])] for i in range(size[0])]
    else:
        rows = [[value[:, dropped + i * size[1] + j] for j in range(size[1])] for i in range(size[0])]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize(
    ("module", "name", "form", "dropped", "maps", "separates"),
    [
        (Transformer(1), "blocks.1.norm1", "tokens", 1, (8, 4, 6), False),
        (Transformer(3), "blocks.1.norm1", "tokens", 3, (8, 4, 6), False),
        (Transformer(0), "norm", "tokens", 0, (8, 4, 6), True),
        (Transformer(2, batch_first=False), "blocks.1.norm1", "tokens", 2, (8, 4, 6), False),
        (ChannelsLast(), "norm", "channels-last", 0, (12, 2, 3), True),
    ],
)
def test_automatic_choice(
    module: nn.Module, name: str, form: str, dropped: int, maps: tuple[int, ...], separates: bool, tmp_path: Path
) -> None:
    module = live_weights(module).eval()
    chosen = choose(module)
    assert (chosen.name, chosen.layout.form, chosen.layout.prefix) == (name, form, dropped)
    assert chosen.shape == maps and chosen.separates is separates
    # CAM applies to a mean over all positions followed by one linear layer.
    assert (chosen.class_weights is not None) is (dropped == 0)

    report = export(module, tmp_path / "model.onnx", image_size=SIZE)
    assert (report.layer, report.form, report.activations) == (name, form, maps)
    layer = ModelFile.read(report.path).metadata.layer
    assert layer is not None and (layer.form, layer.dropped_tokens, layer.separates) == (form, dropped, separates)

    images = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 3, 6])
    session = onnxruntime.InferenceSession(report.path)
    activations, gradients = session.run(
        ["activations", "gradients"], {"images": images.numpy(), "targets": targets.numpy()}
    )
    module = module.double()
    exact = module_hooks.activations_and_gradients(module, module.get_submodule(name), images.double(), targets)
    for ours, value in zip((activations, gradients), exact, strict=True):
        value = value if getattr(module, "batch_first", True) else value.transpose(0, 1)
        wanted = as_map(value, form, dropped, (maps[1], maps[2])).detach().numpy()
        assert np.linalg.norm(ours - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("layer", "form", "dropped"),
    [("patches", "map", 0), ("blocks.0", "tokens", 2), ("blocks.1.norm2", "tokens", 2), ("blocks.0.mlp", "tokens", 2)],
)
def test_layers_by_name(layer: str, form: str, dropped: int) -> None:
    chosen = choose(live_weights(Transformer(2)), layer)
    assert (chosen.layout.form, chosen.layout.prefix, chosen.layout.size) == (form, dropped, (4, 6))


def test_a_layer_whose_gradient_is_zero_is_refused(tmp_path: Path) -> None:
    """The network reads only the class token of the last block's output."""
    with pytest.raises(ExportError, match="gradient is identically zero"):
        export(live_weights(Transformer(1)), tmp_path / "model.onnx", image_size=SIZE, layer="blocks.1")


class Shuffled(nn.Module):
    """Network that changes the order and the number of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.mix = nn.Linear(24, 5)
        self.after = nn.Identity()
        self.head = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(self.mix(self.patches(x).flatten(2)).transpose(1, 2))
        return self.head(x.mean(1))


def test_a_named_layer_with_unknown_positions_is_refused() -> None:
    with pytest.raises(
        ExportError, match=r"'after' returns shape \(N, 5, 8\).*spatial dimensions are unknown"
    ) as caught:
        choose(Shuffled(), "after")
    assert "\n" not in str(caught.value)


def test_the_engine_explains_with_tokens(tmp_path: Path) -> None:
    module = live_weights(Transformer(1)).eval()
    path = export(module, tmp_path / "model.onnx", image_size=SIZE).path
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    result = seewhy.Explainer(path).explain(images.numpy(), target=[1, 5])
    double = module.double()
    value, gradient = module_hooks.activations_and_gradients(
        double, double.blocks[1].norm1, images.double(), torch.tensor([1, 5])
    )
    tokens, slopes = (as_map(part, "tokens", 1, (4, 6)) for part in (value, gradient))
    wanted = (slopes.mean((2, 3), keepdim=True) * tokens).sum(1).detach().numpy()
    np.testing.assert_allclose(result.maps, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
