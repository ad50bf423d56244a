"""Tests of `seewhy_export.target_layer.selection`: the automatic choice, names, heads, and layers that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import TargetLayer, target_layer
from support.exporting.networks import branches, live_weights, torchvision_network


def choose(module: nn.Module, layer: str | None = None, size: int = 64) -> TargetLayer:
    return target_layer(trace_forward(prepare(module), (size, size), 3, layer), layer)


def shape(layer: TargetLayer) -> tuple[int, ...]:
    return tuple(int(n) for n in layer.node.meta["val"].shape[1:])


@pytest.mark.parametrize(
    ("network", "name", "maps", "cam"),
    [
        ("alexnet", "features.11", (256, 3, 3), False),
        ("vgg11", "features.19", (512, 4, 4), False),
        ("resnet18", "layer4", (512, 2, 2), True),
        ("squeezenet1_1", "classifier.2", (1000, 3, 3), False),
        ("mobilenet_v2", "features", (1280, 2, 2), True),
        ("googlenet", "inception5b", (1024, 2, 2), True),
    ],
)
def test_automatic_choice(network: str, name: str, maps: tuple[int, ...], cam: bool) -> None:
    module = torchvision_network(network)
    chosen = choose(module)
    assert (chosen.name, chosen.chosen, shape(chosen)) == (name, "automatic", maps)
    assert (chosen.class_weights is not None) is cam
    assert chosen.separates
    # Naming the layer selects the same value.
    named = choose(module, name)
    assert (named.node.name, named.chosen) == (chosen.node.name, "named")


def test_the_last_map_of_densenet_is_its_functional_relu() -> None:
    chosen = choose(torchvision_network("densenet121"))
    assert chosen.name.startswith("relu") and shape(chosen) == (1024, 2, 2)
    assert chosen.class_weights is not None


def test_a_module_called_several_times_means_its_last_call() -> None:
    """`act` runs on the first branch and on the last map; only the last map has 10 channels."""
    assert shape(choose(branches(), "act")) == (10, 8, 8)


def test_a_bypassed_layer_does_not_separate() -> None:
    assert not choose(branches(), "down").separates
    assert choose(branches(), "pool").separates


def test_a_wrong_name_lists_close_ones() -> None:
    with pytest.raises(ExportError, match=r"Unknown layer 'layr4'\. Did you mean 'layer4'\?") as caught:
        choose(torchvision_network("resnet18"), "layr4")
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_not_called_is_refused() -> None:
    module = torchvision_network("googlenet")
    with pytest.raises(ExportError, match="'aux1' is not called in the forward pass"):
        choose(module, "aux1")


def test_a_layer_without_maps_is_refused() -> None:
    with pytest.raises(ExportError, match=r"'fc' returns shape \(N, 1000\), and its"):
        choose(torchvision_network("resnet18"), "fc")


class DeadEnd(nn.Module):
    """Network in which nothing reads `unused`, and `silenced` is multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(3, 4, 3)
        self.unused = nn.Conv2d(3, 4, 3)
        self.silenced = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.head((self.used(x).relu() + 0 * self.silenced(x)).mean((2, 3)))


@pytest.mark.parametrize("layer", ["unused", "silenced"])
def test_a_layer_with_zero_gradient_is_refused_by_name(layer: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"'{layer}'.*(identically zero|not called)"):
        export(live_weights(DeadEnd()), tmp_path / "model.onnx", image_size=(8, 8), layer=layer)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_returns_several_tensors_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.inner = Pair(), branches()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.pair(x)[0])

    with pytest.raises(ExportError, match="'pair' returns tuple, not one tensor"):
        choose(Net(), "pair")


def test_a_network_without_convolutions_needs_a_name() -> None:
    with pytest.raises(ExportError, match="name one with `layer`"):
        choose(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)))


def test_blocks_that_change_the_layout_are_included_whole() -> None:
    chosen = choose(torchvision_network("convnext_tiny"))
    assert (chosen.name, shape(chosen), chosen.separates) == ("features", (768, 2, 2), True)


def test_a_bias_before_the_pool_is_part_of_the_map() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            gated = self.conv(x)
            gated = gated * torch.sigmoid(gated.mean((2, 3), keepdim=True))  # squeeze and excitation
            return self.head(nn.functional.avg_pool2d(gated, 64).flatten(1))

    chosen = choose(Scaled())
    assert chosen.node.target is torch.ops.aten.mul.Tensor
    assert chosen.class_weights is not None and chosen.separates
