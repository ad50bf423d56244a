"""Tests of exported networks that start at their target layer: several classes, and Ablation-CAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from support.exporting.networks import ChannelsLast, Transformer, branches, live_weights
from support.session_calls import record_runs

METHODS = ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"]
Exported = Callable[..., Path]


class Around(nn.Module):
    """A path from the image to the logits that does not pass through the target layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.colours = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        # Not a sum, so that the gradient at the layer depends on the image.
        return self.head(self.features(x).mean((2, 3))) * self.colours(x.mean((2, 3)))


def layered() -> nn.Module:
    """A head of pooling, layers and a rectifier, as VGG has it."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten()),
        *(nn.Linear(54, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)),
    )


NETWORKS = {
    "branches": (branches, None, True),
    "layered": (lambda: live_weights(layered()).eval(), "1", True),
    "around": (lambda: live_weights(Around()).eval(), "features", False),
    "tokens": (lambda: live_weights(Transformer(0)).eval(), "norm", True),
    "class-token": (lambda: live_weights(Transformer(2)).eval(), "blocks.1.norm1", False),
    "channels-last": (lambda: live_weights(ChannelsLast()).eval(), "norm", True),
}
SIZE = (16, 24)


def pictures() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_class_gets_its_own_answer(exported: Exported, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, layer, separates = NETWORKS[name]
    explainer = seewhy.Explainer(exported(f"classes-{name}", make(), image_size=SIZE, layer=layer))
    images = pictures().numpy()
    runs = record_runs(monkeypatch)
    together = explainer.explain(images, METHODS, top=4)
    assert [fed for _, fed, _ in runs] == [{"images", "targets"}, {"activations" if separates else "images", "targets"}]
    for method, result in together.items():
        assert len({result.maps[0, k].tobytes() for k in range(4)}) == 4
        for k in range(4):
            alone = explainer.explain(images, method, target=result.targets[:, k])
            # Sums of float32 may be taken in another order for another number of rows.
            np.testing.assert_allclose(result.attributions[:, k], alone.attributions, rtol=1e-4, atol=1e-6)


# Where the layer gives its channels, and how many tokens in front are no places.
CHANNELS = {"around": (1, 0), "layered": (1, 0), "tokens": (2, 0), "class-token": (2, 2), "channels-last": (3, 0)}


@pytest.mark.parametrize("name", CHANNELS)
def test_ablationcam_with_hooks(exported: Exported, name: str) -> None:
    """Each channel zeroed in PyTorch, in float64: class tokens and paths around the layer go on as they were."""
    make, layer, _ = NETWORKS[name]
    axis, dropped = CHANNELS[name]
    module = make()
    result = seewhy.Explainer(exported(f"classes-{name}", module, image_size=SIZE, layer=layer)).explain(
        pictures().numpy(), ["ablationcam", "gradcam"], top=3
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
        y = module(pictures().double()).gather(1, classes)
        assert result.maps is not None
        places = result.maps.shape[-2:]
        # (N,C,h,w), whatever the layer gives.
        activations = kept[0][:, dropped:].movedim(axis, 1).reshape(3, -1, *places)
        expected = torch.zeros(result.maps.shape, dtype=torch.float64)
        for channel in range(activations.shape[1]):
            removed[:] = [channel]
            lost = (y - module(pictures().double()).gather(1, classes)) / y.abs()
            expected += lost[:, :, None, None] * activations[:, None, channel]
    error = float((torch.from_numpy(result.maps).double() - expected).norm() / expected.norm())
    assert error < 1e-4  # losses are differences of float32 logits, some of them a hundred times as large
