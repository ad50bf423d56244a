"""Poolings and normalizations that must export, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.module_battery.networks import CHANNELS, Part, conv

POOLS: dict[str, Callable[[], nn.Module | Part]] = {
    "max": lambda: nn.MaxPool2d(2),
    "max without stride": lambda: lambda x: F.max_pool2d(x, (3, 2)),
    "max overlapping": lambda: nn.MaxPool2d(3, 2, padding=1),
    "max ceil_mode": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max ceil_mode, padded, uneven": lambda: nn.MaxPool2d((3, 5), (2, 3), padding=(1, 2), ceil_mode=True),
    "max dilated": lambda: nn.MaxPool2d(3, 2, dilation=2, padding=1),
    "max stride 1": lambda: nn.MaxPool2d(5, 1, padding=2),
    "max with indices": lambda: lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max 1d": lambda: lambda x: F.max_pool1d(x.flatten(2), 4, 3).reshape(-1, CHANNELS, 1, 159),
    "max 3d": lambda: lambda x: F.max_pool3d(x, 2, 2),
    "max unpool": lambda: lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "average": lambda: nn.AvgPool2d(2),
    "average padded": lambda: nn.AvgPool2d(3, 2, padding=1),
    "average padded, not counted": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "average ceil_mode": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "average ceil_mode, padded, not counted": lambda: nn.AvgPool2d(
        (3, 4), 3, 1, ceil_mode=True, count_include_pad=False
    ),
    "average with a divisor": lambda: nn.AvgPool2d(3, 2, divisor_override=5),
    "average stride 1": lambda: nn.AvgPool2d(3, 1, 1),
    "average 1d": lambda: lambda x: F.avg_pool1d(x.flatten(2), 4, 4).reshape(-1, CHANNELS, 10, 12),
    "average 3d": lambda: lambda x: F.avg_pool3d(x, (2, 3, 3), (2, 2, 3)),
    "adaptive average, even": lambda: nn.AdaptiveAvgPool2d((5, 6)),
    "adaptive average, uneven": lambda: nn.AdaptiveAvgPool2d((7, 5)),
    "adaptive average, one side kept": lambda: nn.AdaptiveAvgPool2d((None, 5)),
    "adaptive average, larger": lambda: nn.AdaptiveAvgPool2d((25, 30)),
    "adaptive average 1d": lambda: lambda x: F.adaptive_avg_pool1d(x.flatten(2), 7),
    "adaptive average 1d of transposed tokens": lambda: (
        lambda x: F.adaptive_avg_pool1d(F.layer_norm(x.flatten(2).transpose(1, 2), (CHANNELS,)).transpose(1, 2), 1)
    ),
    "adaptive average 3d": lambda: lambda x: F.adaptive_avg_pool3d(x[:, None], (2, 5, 7)).flatten(1, 2),
    "adaptive max, even": lambda: nn.AdaptiveMaxPool2d((5, 6)),
    "adaptive max, uneven": lambda: nn.AdaptiveMaxPool2d((7, 5)),
    "adaptive max, one": lambda: nn.AdaptiveMaxPool2d(1),
    "adaptive max 1d": lambda: lambda x: F.adaptive_max_pool1d(x.flatten(2), 7),
    "LPPool": lambda: nn.LPPool2d(2, 3, stride=2),
    "LPPool of norm 1.5": lambda: lambda x: F.lp_pool2d(x.abs() + 0.1, 1.5, 2),
    "global mean": lambda: lambda x: x.mean((2, 3)),
    "global mean by view": lambda: lambda x: x.view(x.size(0), x.size(1), -1).mean(2),
    "global amax": lambda: lambda x: x.amax((2, 3)),
    "global max": lambda: lambda x: x.flatten(2).max(2).values,
    "global max twice": lambda: lambda x: x.max(3)[0].max(2)[0],
    "global logsumexp": lambda: lambda x: x.logsumexp((2, 3)),
    "global std": lambda: lambda x: x.std((2, 3)),
    "global var, biased": lambda: lambda x: x.var((2, 3), unbiased=False),
    "global norm": lambda: lambda x: x.norm(dim=(2, 3)),
    "global min": lambda: lambda x: x.amin((2, 3)),
    "average and max": lambda: lambda x: torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1),
    "generalised mean": lambda: lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), (20, 24)).pow(1 / 3),
    "blur pool": lambda: (
        lambda x: F.conv2d(
            F.pad(x, (1, 1, 1, 1), mode="reflect"),
            torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
            .outer(torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype))
            .expand(6, 1, 3, 3)
            / 16,
            stride=2,
            groups=6,
        )
    ),
}

NORMS: dict[str, Callable[[], nn.Module | Part]] = {
    "batch norm": lambda: nn.BatchNorm2d(CHANNELS),
    "batch norm without weights": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "batch norm 1d": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(CHANNELS)),
    "LRN": lambda: nn.LocalResponseNorm(3, alpha=0.1),
    "LRN even": lambda: nn.LocalResponseNorm(4, alpha=0.5, beta=0.6, k=2.0),
    "group norm": lambda: nn.GroupNorm(3, CHANNELS),
    "group norm without weights": lambda: nn.GroupNorm(2, CHANNELS, affine=False),
    "group norm of one group": lambda: nn.GroupNorm(1, CHANNELS),
    "instance norm": lambda: nn.InstanceNorm2d(CHANNELS),
    "instance norm with weights": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "instance norm with running stats": lambda: nn.InstanceNorm2d(CHANNELS, affine=True, track_running_stats=True),
    "layer norm of channels": lambda: lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2),
    "layer norm of maps": lambda: nn.LayerNorm((CHANNELS, 20, 24)),
    "layer norm without weights": lambda: nn.LayerNorm((20, 24), elementwise_affine=False),
    "RMS norm": lambda: nn.Sequential(nn.Flatten(2), nn.RMSNorm(480)),
    "normalize": lambda: lambda x: F.normalize(x, dim=1),
    "normalize by p=1": lambda: lambda x: F.normalize(x, p=1.0, dim=1),
    "standardise by hand": lambda: lambda x: (x - x.mean((1, 2, 3), True)) / (x.std((1, 2, 3), keepdim=True) + 1e-5),
    "cosine head": lambda: lambda x: F.cosine_similarity(x[:, :3].flatten(2), x[:, 3:].flatten(2), dim=2),
    "global response norm": lambda: (
        lambda x: x + x * (x.norm(dim=(2, 3), keepdim=True) / (x.norm(dim=(2, 3), keepdim=True).mean(1, True) + 1e-6))
    ),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout2d": lambda: nn.Dropout2d(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "stochastic depth": lambda: StochasticDepth(),
}


class StochasticDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = conv(3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            keep = torch.rand(x.shape[0], 1, 1, 1) < 0.8
            return x + self.branch(x) * keep
        return x + self.branch(x)
