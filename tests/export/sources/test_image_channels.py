"""Tests of `seewhy_export.sources.image_channels`: channels that are tried, and a module that stays unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy_export.sources.image_channels import find_channels


class Grey(nn.Module):
    """Network for grey images, which it repeats three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (nn.Conv2d(3, 4, 3), 3),
        (nn.Conv2d(1, 4, 3), 1),
        (nn.Conv2d(7, 4, 3), 7),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3)), 1),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 2)), 1),
        (Grey(), 1),
        (nn.Conv2d(3, 4, 3).half(), 3),
        (nn.Conv2d(9, 4, 99), 9),  # nothing runs
    ],
    ids=str,
)
def test_channels_with_which_the_network_runs(module: nn.Module, channels: int) -> None:
    assert find_channels(module, (16, 16)) == channels


def test_the_module_stays_unchanged() -> None:
    module = Grey().train()
    module.conv.eval()
    assert find_channels(module, (16, 16)) == 1
    assert (module.training, module.conv.training, float(module.calls)) == (True, False, 0)
    assert module.conv.weight.requires_grad and torch.is_grad_enabled()
