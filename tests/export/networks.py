"""Networks to export in tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seewhy_export.torchvision_import import import_torchvision


def live_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and buffer values that leave no branch switched off.

    Fresh weights hide faults: zero heads, zero biases, norms that start at zero or one. Convolutions are scaled to keep
    the variance of what passes through rectifiers.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    def normal(like: Tensor, std: float) -> Tensor:
        return std * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for part in module.modules():
            for name, value in part.named_parameters(recurse=False):
                if value.dim() > 1:
                    value.copy_(normal(value, (2.0 / value[0].numel()) ** 0.5))
                elif name == "bias":
                    value.copy_(normal(value, 0.02))
                else:
                    value.copy_(uniform(value, 0.5, 1.5))
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.copy_(normal(part.running_mean, 0.1))
                part.running_var.copy_(uniform(part.running_var, 0.5, 1.5))
    return module


def torchvision_network(name: str) -> nn.Module:
    """A torchvision classifier with live random weights, in evaluation mode."""
    models = import_torchvision().models
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return live_weights(models.get_model(name, weights=None, **options)).eval()


class Branches(nn.Module):
    """A small network with what makes backward passes go wrong: branches, a skip, overlapping pools, strides.

    Its rectifiers are functional, in place and one module used twice; ReLU6 and clamp are among them.
    """

    def __init__(self, channels: int = 3, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.right = nn.Conv2d(8, 8, 1)
        self.act = nn.ReLU()
        self.down = nn.Conv2d(16, 12, 3, stride=2, padding=1, groups=2)
        self.shortcut = nn.Conv2d(16, 12, 1, stride=2)
        self.norm = nn.BatchNorm2d(12)
        self.last = nn.Conv2d(12, 10, 3, padding=1)
        self.head = nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(nn.functional.relu(self.stem(x)))
        x = torch.cat([self.left(x), self.act(self.right(x))], 1)
        x = (self.norm(self.down(x)) + self.shortcut(x)).clamp(min=0)
        x = self.act(self.last(x))
        return self.head(x.mean((2, 3)))


def branches(channels: int = 3, classes: int = 7) -> nn.Module:
    return live_weights(Branches(channels, classes)).eval()
