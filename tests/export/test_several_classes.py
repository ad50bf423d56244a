"""Several classes of exported networks: the head alone gives what a run for each class gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import branches, live_weights
from torch import Tensor, nn

import seewhy

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
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_class_gets_its_own_answer(exported: Exported, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, layer, separates = NETWORKS[name]
    explainer = seewhy.Explainer(exported(f"classes-{name}", make(), image_size=(24, 20), layer=layer))
    images = torch.randn(3, 3, 24, 20, generator=torch.Generator().manual_seed(0)).numpy()
    fed: list[set[str]] = []
    run = explainer._sessions.run
    monkeypatch.setattr(
        explainer._sessions, "run", lambda outputs, feeds: fed.append(set(feeds)) or run(outputs, feeds)
    )
    together = explainer.explain(images, METHODS, top=4)
    assert fed == [{"images", "targets"}, {"activations" if separates else "images", "targets"}]
    for method, result in together.items():
        assert len({result.maps[0, k].tobytes() for k in range(4)}) == 4
        for k in range(4):
            alone = explainer.explain(images, method, target=result.targets[:, k])
            # Sums of float32 may be taken in another order for another number of rows.
            np.testing.assert_allclose(result.attributions[:, k], alone.attributions, rtol=1e-4, atol=1e-6)
