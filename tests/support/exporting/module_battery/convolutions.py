"""Convolutions and paddings that must export, by name, and some that the exporter must refuse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.module_battery.networks import CHANNELS, Part, conv


def padded(mode: str, value: float | None = None) -> Part:
    return lambda x: F.pad(x, (1, 3, 2, 0), mode=mode, value=value)


class WeightsFromWeights(nn.Module):
    """A convolution with weight standardization: each forward pass normalizes the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        std = weight.std((1, 2, 3), keepdim=True) + 1e-5
        return F.conv2d(x, (weight - mean) / std, self.conv.bias, padding=1)


class BatchNormAsStandardisation(nn.Module):
    """Weight standardization as in timm: batch norm in training mode, applied to the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = conv(3, padding=1), nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        flat = weight.reshape(1, CHANNELS, -1)
        weight = F.batch_norm(flat, None, None, self.gain, training=True, momentum=0.0).reshape_as(weight)
        return F.conv2d(x, weight, self.conv.bias, padding=1)


class DynamicConvolution(nn.Module):
    """A convolution whose kernel is computed from each image; the groups carry the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(CHANNELS, CHANNELS * CHANNELS * 9)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.route(x.mean((2, 3))).reshape(n * c, c, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), weight, padding=1, groups=n).reshape(n, c, h, w)


class Mixture(nn.Module):
    """A CondConv whose experts run separately and are weighted by the image, without the batch in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([conv(3, padding=1) for _ in range(3)])
        self.route = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.route(x.mean((2, 3))).softmax(1)
        mixed = torch.stack([expert(x) for expert in self.experts], 1) * weights[:, :, None, None, None]
        return mixed.sum(1)


class Correlation(nn.Module):
    """A convolution whose kernel is computed from the statistics of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        weight = x.mean((0, 2, 3)).reshape(CHANNELS, 1, 1, 1).expand(CHANNELS, 1, 3, 3)
        return F.conv2d(x, weight, padding=1, groups=CHANNELS)


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, (3, 3, 3), stride=(1, 2, 2), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x[:, None])).flatten(1, 2)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 5, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x.flatten(2))).reshape(-1, CHANNELS, 10, 24)


class UnfoldConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, 3, padding=1, stride=2)
        return self.linear(columns.transpose(1, 2)).transpose(1, 2).reshape(-1, 4, 10, 12)


CONVOLUTIONS: dict[str, Callable[[], nn.Module | Part]] = {
    "1x1": lambda: conv(1),
    "grouped": lambda: conv(3, padding=1, groups=2),
    "depthwise": lambda: conv(3, padding=1, groups=CHANNELS),
    "depthwise multiplied": lambda: nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1, groups=CHANNELS),
    "dilated": lambda: conv(3, padding=2, dilation=2),
    "dilated unevenly": lambda: conv(3, padding=(2, 1), dilation=(2, 3)),
    "stride 2": lambda: conv(3, stride=2, padding=1),
    "stride 2 without padding": lambda: conv(3, stride=2),
    "stride 3, kernel 2": lambda: conv(2, stride=3),
    "stride 4, kernel 4": lambda: conv(4, stride=4),
    "stride 4, kernel 11": lambda: conv(11, stride=4, padding=2),
    "stride 2, even kernel": lambda: conv(4, stride=2, padding=1),
    "stride (2, 3), kernel (3, 5)": lambda: conv((3, 5), stride=(2, 3), padding=(1, 0)),
    "stride 2, dilated, grouped": lambda: conv(3, stride=2, padding=2, dilation=2, groups=3),
    "stride 2 depthwise": lambda: conv(5, stride=2, padding=2, groups=CHANNELS),
    "1x1 stride 2": lambda: conv(1, stride=2),
    "1x1 stride 2 padded": lambda: conv(1, stride=2, padding=1),
    "padding past the kernel": lambda: conv(3, padding=4),
    "row and column kernels": lambda: nn.Sequential(conv((1, 7), padding=(0, 3)), conv((7, 1), padding=(3, 0))),
    "padding same": lambda: conv(3, padding="same"),
    "padding same, even kernel": lambda: conv((2, 4), padding="same"),
    "padding same, dilated": lambda: conv(3, padding="same", dilation=3),
    "padding valid": lambda: conv(3, padding="valid"),
    "padding mode reflect": lambda: conv(3, padding=1, padding_mode="reflect"),
    "padding mode replicate": lambda: conv(3, padding=1, padding_mode="replicate"),
    "padding mode circular": lambda: conv(3, padding=1, padding_mode="circular"),
    "pad by zeros": lambda: padded("constant"),
    "pad by a constant": lambda: padded("constant", 0.7),
    "pad by cutting": lambda: lambda x: F.pad(x, (-1, 2, 3, -2)),
    "pad by reflection": lambda: padded("reflect"),
    "pad by replication": lambda: padded("replicate"),
    "pad in a circle": lambda: padded("circular"),
    "TensorFlow's same": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(3, stride=2)),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, 4, 2, stride=2),
    "transposed with all options": lambda: nn.ConvTranspose2d(
        CHANNELS, 4, (3, 4), stride=(2, 3), padding=(1, 2), output_padding=(1, 2), groups=2, dilation=(2, 1)
    ),
    "transposed, stride 1": lambda: nn.ConvTranspose2d(CHANNELS, 4, 3, padding=1),
    "conv1d": Sequence,
    "conv3d": Volume,
    "conv transpose 1d": lambda: nn.Sequential(
        nn.Flatten(2), nn.ConvTranspose1d(CHANNELS, 3, 3, stride=2, padding=1), nn.AvgPool1d(7)
    ),
    "unfold": UnfoldConvolution,
    "unfold by strides": lambda: lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)),
    "unfold overlapping": lambda: lambda x: x.unfold(2, 5, 3).amax(-1),
    "fold": lambda: lambda x: F.fold(F.unfold(x, 4, stride=2, padding=1), (20, 24), 4, stride=2, padding=1),
    "pixel_shuffle": lambda: lambda x: F.pixel_shuffle(x[:, :4], 2),
    "pixel_unshuffle": lambda: lambda x: F.pixel_unshuffle(x, 2),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(conv(3, padding=1)),
    "weight_norm, old": lambda: nn.utils.weight_norm(conv(3, padding=1)),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(conv(3, padding=1)),
    "weight standardisation": WeightsFromWeights,
    "weight standardisation by batch norm": BatchNormAsStandardisation,
    "mixture of experts": Mixture,
    "no bias": lambda: conv(3, padding=1, bias=False),
}
