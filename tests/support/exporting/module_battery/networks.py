"""Networks around one or several parts: a convolution, then for each part a branch with a convolution and a head."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from support.exporting.networks import live_weights

Part = Callable[[Tensor], Tensor]

CHANNELS = 6
SIZE = (20, 24)


class Function(nn.Module):
    """A module that wraps a function, so that the function has a module path."""

    def __init__(self, function: Part) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Branch(nn.Module):
    """Maps (N, 6, H, W) -> the part -> a convolution if the part returns maps -> 5 logits of standard deviation 1."""

    def __init__(self, part: nn.Module | Part, size: tuple[int, int]) -> None:
        super().__init__()
        self.part = part if isinstance(part, nn.Module) else Function(part)
        with torch.no_grad():
            shape = self.eval().part(torch.randn(2, CHANNELS, *size)).shape
        self.last = nn.Conv2d(shape[1], 4, 3, padding=1) if len(shape) == 4 else nn.Identity()
        self.head = nn.Linear(4 if len(shape) == 4 else math.prod(shape[1:]), 5)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.part(x))
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x.flatten(1)) * self.scale


class Network(nn.Module):
    """Images (N, channels, H, W) -> a convolution -> the sum over branches, one for each part."""

    def __init__(self, parts: list[nn.Module | Part], channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, CHANNELS, 3, padding=1)
        self.branches = nn.ModuleList([Branch(part, size) for part in parts])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return sum(branch(x * 1) for branch in self.branches)


def network(*parts: nn.Module | Part, channels: int = 3, size: tuple[int, int] = SIZE, live: bool = True) -> nn.Module:
    """Return a network of one or several parts, scaled so that a fault in any part shows in the sum of the branches."""
    torch.manual_seed(0)
    module = Network(list(parts), channels, size).eval()
    if live:
        live_weights(module)
    with torch.no_grad():
        x = module.stem(torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0)))
        for branch in module.branches:
            branch.scale = float(1 / branch(x * 1).std())
    return module


def conv(*arguments: int, **options: object) -> nn.Module:
    """Return a convolution with the stem's channel count; `arguments` start with its kernel size."""
    return nn.Conv2d(CHANNELS, CHANNELS, *arguments, **options)
