"""Tests of methods that run an exported network from its target layer on: several classes, and Ablation-CAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from support.exporting.networks import ChannelsLast, Transformer, branches, live_weights
from support.session_calls import record_plans

METHODS = ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"]
Exported = Callable[..., Path]


class WithBypass(nn.Module):
    """Network with a path from the image to the logits that bypasses the target layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.colours = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        # A product, so that the gradient at the layer depends on the image.
        return self.head(self.features(x).mean((2, 3))) * self.colours(x.mean((2, 3)))


def layered() -> nn.Module:
    """Return a network whose head has pooling, linear layers and a rectifier, like VGG."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten()),
        *(nn.Linear(54, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)),
    )


NETWORKS = {
    "branches": (branches, None, True),
    "layered": (lambda: live_weights(layered()).eval(), "1", True),
    "bypass": (lambda: live_weights(WithBypass()).eval(), "features", False),
    "tokens": (lambda: live_weights(Transformer(0)).eval(), "norm", True),
    "class-token": (lambda: live_weights(Transformer(2)).eval(), "blocks.1.norm1", False),
    "channels-last": (lambda: live_weights(ChannelsLast()).eval(), "norm", True),
}
SIZE = (16, 24)


def random_images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_class_gets_its_own_result(exported: Exported, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, layer, separates = NETWORKS[name]
    explainer = seewhy.Explainer(exported(f"classes-{name}", make(), image_size=SIZE, layer=layer))
    images = random_images().numpy()
    runs = record_plans(monkeypatch)
    together = explainer.explain(images, METHODS, top=4)
    assert [fed for _, fed, _ in runs] == [{"images", "targets"}, {"activations" if separates else "images", "targets"}]
    for method, result in together.items():
        assert len({result.maps[0, k].tobytes() for k in range(4)}) == 4
        for k in range(4):
            alone = explainer.explain(images, method, target=result.targets[:, k])
            # The order of float32 sums may depend on the batch size.
            np.testing.assert_allclose(result.attributions[:, k], alone.attributions, rtol=1e-4, atol=1e-6)


# Axis of the channels in the layer's output, and number of leading tokens without a position in the image.
CHANNELS = {"bypass": (1, 0), "layered": (1, 0), "tokens": (2, 0), "class-token": (2, 2), "channels-last": (3, 0)}


@pytest.mark.parametrize("name", CHANNELS)
def test_ablationcam_with_hooks(exported: Exported, name: str) -> None:
    """Ablation-CAM agrees with PyTorch in float64, where a hook zeroes one channel at a time.

    Class tokens and paths that bypass the layer keep their values.
    """
    make, layer, _ = NETWORKS[name]
    axis, dropped = CHANNELS[name]
    module = make()
    result = seewhy.Explainer(exported(f"classes-{name}", module, image_size=SIZE, layer=layer)).explain(
        random_images().numpy(), ["ablationcam", "gradcam"], top=3
    )["ablationcam"]
    module.double()
    removed: list[int] = []
    kept: list[Tensor] = []

    def remove(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        changed = output.clone()
        for channel in removed:
            changed.narrow(1, dropped, changed.shape[1] - dropped).select(axis, channel).zero_()
        return changed

    module.get_submodule(layer).register_forward_hook(remove)
    classes = torch.from_numpy(result.targets)
    with torch.no_grad():
        y = module(random_images().double()).gather(1, classes)
        assert result.maps is not None
        places = result.maps.shape[-2:]
        # Bring the layer's output into the layout (N, C, h, w).
        activations = kept[0][:, dropped:].movedim(axis, 1).reshape(3, -1, *places)
        expected = torch.zeros(result.maps.shape, dtype=torch.float64)
        for channel in range(activations.shape[1]):
            removed[:] = [channel]
            drop = (y - module(random_images().double()).gather(1, classes)) / y.abs()
            expected += drop[:, :, None, None] * activations[:, None, channel]
    error = float((torch.from_numpy(result.maps).double() - expected).norm() / expected.norm())
    assert error < 1e-4  # a drop is the difference of float32 logits that may be a hundred times as large
