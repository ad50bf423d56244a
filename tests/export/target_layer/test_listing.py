"""Tests of `seewhy_export.list_layers`: layers, their shapes and the default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.errors import ExportError
from seewhy_export import LayerInfo, export, list_layers
from support.exporting.networks import branches


def test_each_layer_can_be_the_target_layer(tmp_path: Path) -> None:
    module = branches().train()
    layers = list_layers(module, 40)
    assert module.training and layers
    shapes: dict[str, tuple[int, ...]] = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _m, _i, y, name=name: shapes.update({name: tuple(y.shape[1:])}))
    with torch.no_grad():
        module.eval()(torch.zeros(1, 3, 40, 40))
    assert {layer.name: layer.shape for layer in layers} == {
        name: shape for name, shape in shapes.items() if name and len(shape) > 1
    }
    (default,) = (layer for layer in layers if layer.is_default)
    chosen = export(module, tmp_path / "chosen.onnx", 40, outputs=["activations"], verify=False)
    assert (default.name, default.shape) == (chosen.layer, chosen.activations)
    named = export(module, tmp_path / "named.onnx", 40, layers[0].name, outputs=["activations"], verify=False)
    assert (named.layer, named.activations) == (layers[0].name, layers[0].shape)


def test_modules_that_are_not_called_or_return_no_map_are_left_out() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(self.conv(x).mean((2, 3))), "extra": x}

    assert list_layers(Network(), (16, 20)) == (LayerInfo("conv", "Conv2d", (4, 14, 18), True),)


def test_a_network_that_is_not_a_classifier_is_refused() -> None:
    with pytest.raises(ExportError, match="returns a map .* as segmentation networks do"):
        list_layers(nn.Conv2d(3, 4, 3), 16)
