"""Small networks, one for each way in which people write classifiers.

Every network is a convolution, the part in question, another convolution and a head, so that the gradient reaches the
part from behind and leaves it at the front. `TABLES` holds the parts that must export, `REFUSED` the networks that must
be refused, with the reason that the error gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.networks import live_weights

Part = Callable[[Tensor], Tensor]

CHANNELS = 6
SIZE = (20, 24)


class Function(nn.Module):
    """A function as a module, so that it has a path."""

    def __init__(self, function: Part) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Branch(nn.Module):
    """Maps (N, 6, H, W) -> the part -> a convolution where there is a map still -> 5 logits of unit size."""

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
    """A network of one or several parts. No part outweighs the others, so that a fault in any shows in their sum."""
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
    """A convolution of the stem's channels; `arguments` start at its kernel."""
    return nn.Conv2d(CHANNELS, CHANNELS, *arguments, **options)


class ReusedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = conv(3, padding=1), conv(1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.two(self.act(self.one(self.act(x)))))


class MaximumOfBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.zero)


ACTIVATIONS: dict[str, Callable[[], nn.Module | Part]] = {
    "relu function": lambda: F.relu,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu_ method": lambda: lambda x: (x * 1).relu_(),
    "relu reused": ReusedReLU,
    "relu6": nn.ReLU6,
    "clamp(min=0)": lambda: lambda x: x.clamp(min=0),
    "clamp(0, 6)": lambda: lambda x: x.clamp(0, 6),
    "clamp_min": lambda: lambda x: torch.clamp_min(x, 0),
    "clamp_ in place": lambda: lambda x: (x * 1).clamp_(min=0),
    "clamp by tensors": lambda: lambda x: x.clamp(min=torch.zeros(1, dtype=x.dtype)),
    "maximum with zeros": lambda: lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum with a constant": lambda: lambda x: torch.maximum(x, torch.tensor(0.0, dtype=x.dtype)),
    "maximum with a buffer": MaximumOfBuffer,
    "max with new_zeros": lambda: lambda x: torch.max(x, x.new_zeros(1)),
    "where(x > 0, x, 0)": lambda: lambda x: torch.where(x > 0, x, 0.0),
    "where(x > 0, x, zeros)": lambda: lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where(x >= 0, x, 0)": lambda: lambda x: torch.where(x >= 0, x, 0),
    "where(x < 0, 0, x)": lambda: lambda x: torch.where(x < 0, 0.0, x),
    "x * (x > 0)": lambda: lambda x: x * (x > 0),
    "x * (x > 0).float()": lambda: lambda x: x * (x > 0).to(x.dtype),
    "threshold": lambda: lambda x: F.threshold(x, 0.0, 0.0),
    "threshold above zero": lambda: nn.Threshold(0.3, -0.2),
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "prelu shared": nn.PReLU,
    "prelu by channel": lambda: nn.PReLU(CHANNELS),
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "celu": lambda: nn.CELU(0.7),
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu tanh": lambda: nn.GELU("tanh"),
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh,
    "hardtanh from 0": lambda: nn.Hardtanh(0, 2),
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "mish": nn.Mish,
    "softplus": lambda: nn.Softplus(2.0, 3.0),
    "softsign": nn.Softsign,
    "logsigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
    "glu": lambda: nn.GLU(1),
    "sigmoid gate": lambda: lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "squared relu": lambda: lambda x: F.relu(x).square(),
    "softmax inside": lambda: lambda x: x.softmax(1),
    "log_softmax inside": lambda: lambda x: x.log_softmax(1),
    "softmin": lambda: lambda x: F.softmin(x, 1),
    "abs": lambda: torch.abs,
    "maxout": lambda: lambda x: x.reshape(-1, 3, 2, 20, 24).amax(2),
    "maximum of halves": lambda: lambda x: torch.maximum(x[:, :3], x[:, 3:]),
    "power": lambda: lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "sin and exp": lambda: lambda x: torch.sin(x) + torch.exp(-x * x) + torch.atan(x) + torch.erf(x) + torch.cos(x),
    "sqrt and rsqrt": lambda: lambda x: (x * x + 0.1).sqrt() + (x * x + 0.2).rsqrt() + torch.log1p(x * x),
}


def padded(mode: str, value: float | None = None) -> Part:
    return lambda x: F.pad(x, (1, 3, 2, 0), mode=mode, value=value)


class WeightsFromWeights(nn.Module):
    """Weight standardisation: the kernel is normalised in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        std = weight.std((1, 2, 3), keepdim=True) + 1e-5
        return F.conv2d(x, (weight - mean) / std, self.conv.bias, padding=1)


class BatchNormAsStandardisation(nn.Module):
    """timm's way of weight standardisation: batch norm in training mode, over a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = conv(3, padding=1), nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        flat = weight.reshape(1, CHANNELS, -1)
        weight = F.batch_norm(flat, None, None, self.gain, training=True, momentum=0.0).reshape_as(weight)
        return F.conv2d(x, weight, self.conv.bias, padding=1)


class DynamicConvolution(nn.Module):
    """A kernel for each image, made from the image: groups carry the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(CHANNELS, CHANNELS * CHANNELS * 9)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.route(x.mean((2, 3))).reshape(n * c, c, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), weight, padding=1, groups=n).reshape(n, c, h, w)


class Mixture(nn.Module):
    """CondConv without the batch in groups: experts weighed by the image."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([conv(3, padding=1) for _ in range(3)])
        self.route = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.route(x.mean((2, 3))).softmax(1)
        mixed = torch.stack([expert(x) for expert in self.experts], 1) * weights[:, :, None, None, None]
        return mixed.sum(1)


class Correlation(nn.Module):
    """A kernel that depends on the batch: one image's statistics filter all."""

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


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, 3, 1), nn.Conv2d(3, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(self.pool(x)), inplace=True)))


class Attention(nn.Module):
    """Attention over places, as one of several spellings."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.qkv, self.attend = nn.Linear(CHANNELS, 3 * CHANNELS), attend

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        n, c, h, w = x.shape
        qkv = self.qkv(x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        return self.attend(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)


def masked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    later = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return scores.masked_fill(later, float("-inf")).softmax(-1) @ v


class MultiheadAttention(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(CHANNELS, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=self.need_weights)[0]


class Encoder(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(CHANNELS, 2, 12, **options)
        self.first = bool(options.get("batch_first"))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(x, 4).flatten(2)
        return (
            self.layer(tokens.transpose(1, 2)) if self.first else self.layer(tokens.permute(2, 0, 1)).permute(1, 2, 0)
        )


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(CHANNELS, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(F.avg_pool2d(x, 4).flatten(2).transpose(1, 2))[0]


class SpatialTransformer(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.theta, self.options = nn.Linear(CHANNELS, 6), options

    def forward(self, x: Tensor) -> Tensor:
        identity = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=x.dtype)
        theta = (identity + 0.1 * self.theta(x.mean((2, 3)))).reshape(-1, 2, 3)
        grid = F.affine_grid(theta, [x.shape[0], CHANNELS, 10, 12], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False, **self.options)


class FixedGrid(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("grid", torch.rand(1, 7, 9, 2) * 2.4 - 1.2)

    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, self.grid.expand(x.shape[0], -1, -1, -1), **self.options)


class Embedding(nn.Module):
    """Position embeddings that are looked up, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(24, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(24)).t()[None, :, None]


def resize(**options: object) -> Part:
    return lambda x: F.interpolate(x, **options)


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def in_place_slice(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :3] = x[:, 3:]
    y[:, 3:, ::2] += x[:, :3, ::2]
    return y


def top_channels(x: Tensor) -> Tensor:
    values, index = x.mean((2, 3)).topk(3, 1)
    return x.gather(1, index[:, :, None, None].expand(-1, -1, *x.shape[2:])) * values[:, :, None, None]


STRUCTURE: dict[str, Callable[[], nn.Module | Part]] = {
    "concatenation": lambda: lambda x: torch.cat([x, F.relu(x), x[:, :1]], 1),
    "split": lambda: lambda x: torch.cat([part * (i + 1) for i, part in enumerate(x.split((1, 2, 3), 1))], 1),
    "chunk": lambda: lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(),
    "stack and unbind": lambda: lambda x: torch.stack(x.unbind(1)[::-1], 1) + torch.stack([x, x], 0).sum(0),
    "channel shuffle": lambda: shuffle,
    "nn.ChannelShuffle": lambda: nn.ChannelShuffle(3),
    "roll": lambda: lambda x: x.roll((3, -2), (2, 3)),
    "roll of all": lambda: lambda x: x.roll(1, 1),
    "flip": lambda: lambda x: x.flip(3) * 2 + x.flip((1, 2)),
    "rot90": lambda: lambda x: x.rot90(1, (2, 3)),
    "transpose": lambda: lambda x: x.transpose(2, 3),
    "squeeze-excitation": SqueezeExcitation,
    "SDPA": lambda: Attention(F.scaled_dot_product_attention),
    "SDPA causal": lambda: Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "attention by matmul": lambda: Attention(lambda q, k, v: (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v),
    "attention, masked": lambda: Attention(masked_attention),
    "linear attention by einsum": lambda: Attention(
        lambda q, k, v: torch.einsum(
            "bhnd,bhde->bhne", q.softmax(-1), torch.einsum("bhnd,bhne->bhde", k.softmax(-2), v)
        )
    ),
    "nn.MultiheadAttention": lambda: MultiheadAttention(False),
    "nn.MultiheadAttention with weights": lambda: MultiheadAttention(True),
    "nn.TransformerEncoderLayer": lambda: Encoder(batch_first=True),
    "nn.TransformerEncoderLayer, norm first": lambda: Encoder(batch_first=True, norm_first=True, activation="gelu"),
    "nn.TransformerEncoderLayer, sequence first": lambda: Encoder(),
    "nearest": lambda: resize(scale_factor=2),
    "nearest to a size": lambda: resize(size=(33, 17)),
    "nearest, smaller": lambda: resize(size=(9, 7)),
    "nearest-exact": lambda: resize(size=(33, 17), mode="nearest-exact"),
    "bilinear": lambda: resize(scale_factor=2, mode="bilinear"),
    "bilinear to a size": lambda: resize(size=(33, 17), mode="bilinear"),
    "bilinear by a fraction": lambda: resize(scale_factor=1.7, mode="bilinear"),
    "bilinear by a fraction, recomputed": lambda: resize(
        scale_factor=0.6, mode="bilinear", recompute_scale_factor=True
    ),
    "bilinear, corners aligned": lambda: resize(size=(33, 17), mode="bilinear", align_corners=True),
    "bicubic": lambda: resize(size=(33, 17), mode="bicubic"),
    "bicubic, corners aligned": lambda: resize(size=(33, 17), mode="bicubic", align_corners=True),
    "area": lambda: resize(size=(7, 5), mode="area"),
    "linear 1d": lambda: lambda x: F.interpolate(x.flatten(2), size=100, mode="linear"),
    "nearest 1d": lambda: lambda x: F.interpolate(x.flatten(2), scale_factor=0.5),
    "trilinear": lambda: lambda x: F.interpolate(x[:, None], size=(4, 9, 7), mode="trilinear").flatten(1, 2),
    "upsampling module": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "grid_sample, bilinear": lambda: FixedGrid(align_corners=False),
    "grid_sample, corners aligned": lambda: FixedGrid(align_corners=True),
    "grid_sample, border": lambda: FixedGrid(align_corners=False, padding_mode="border"),
    "grid_sample, reflection": lambda: FixedGrid(align_corners=False, padding_mode="reflection"),
    "grid_sample, nearest": lambda: FixedGrid(align_corners=False, mode="nearest"),
    "grid_sample, bicubic": lambda: FixedGrid(align_corners=False, mode="bicubic"),
    "spatial transformer": SpatialTransformer,
    "einsum": lambda: lambda x: torch.einsum("nchw,nkhw->nck", x, x),
    "bilinear pooling by bmm": lambda: lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)) / 480,
    "matmul with itself": lambda: lambda x: x @ x.transpose(2, 3),
    "cumsum": lambda: lambda x: x.cumsum(3) * 0.1,
    "topk": lambda: lambda x: x.flatten(2).topk(5, 2).values,
    "topk of channels and gather": lambda: top_channels,
    "gather": lambda: lambda x: x.gather(2, x.argmax(2, keepdim=True).expand(-1, -1, 4, -1)),
    "index_select": lambda: lambda x: x.index_select(1, torch.tensor([2, 0, 5, 5])),
    "indexing by a list": lambda: lambda x: x[:, [1, 1, 4]],
    "indexing by two tensors": lambda: lambda x: x[:, :, torch.tensor([0, 3, 3]), torch.tensor([1, 2, 2])],
    "strided slices": lambda: lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], 1),
    "negative slice": lambda: lambda x: x[..., -5:, :-3],
    "slices written in place": lambda: in_place_slice,
    "masked_fill": lambda: lambda x: x.masked_fill(torch.ones(20, 24, dtype=torch.bool).tril(), 0.5),
    "masked by its values": lambda: lambda x: x.masked_fill(x.abs() > 1, -1.0),
    "scatter": lambda: (
        lambda x: torch.zeros_like(x).scatter_add(
            1, torch.tensor([0, 0, 2, 1, 5, 4]).reshape(1, 6, 1, 1).expand_as(x), x
        )
    ),
    "embedding": Embedding,
    "tile and repeat": lambda: lambda x: x.repeat(1, 2, 1, 1) + x.tile((1, 2, 1, 1)),
    "repeat_interleave": lambda: lambda x: x.repeat_interleave(2, 1),
    "expand": lambda: lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 5, 7),
    "meshgrid coordinates": lambda: (
        lambda x: torch.cat(
            [
                x,
                *(
                    c.expand(x.shape[0], 1, 20, 24).to(x.dtype)
                    for c in torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 1, 24), indexing="ij")
                ),
            ],
            1,
        )
    ),
    "tril": lambda: torch.tril,
    "outer product": lambda: lambda x: x.mean(2)[:, :, :, None] * x.mean(3)[:, :, None],
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "channels last": lambda: lambda x: x.contiguous(memory_format=torch.channels_last) * 2,
    "detached": lambda: lambda x: x * x.detach().sigmoid(),
    "no_grad": lambda: lambda x: x + no_grad_scale(x),
    "between integers": lambda: (
        lambda x: x * (torch.arange(x.shape[3]) * 1.0 - torch.arange(x.shape[2])[:, None] * 0.5 + 2.5)
    ),
    "checkpoint": lambda: lambda x: torch.utils.checkpoint.checkpoint(lambda y: F.relu(y) * y, x, use_reentrant=False),
    "autocast off": lambda: autocast_off,
    "float64 inside": lambda: lambda x: (x.double() * 2).to(x.dtype),
}


def no_grad_scale(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.mean((2, 3), keepdim=True)


def autocast_off(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.relu(x)


TABLES = {
    "activations": ACTIVATIONS,
    "convolutions": CONVOLUTIONS,
    "pools": POOLS,
    "norms": NORMS,
    "structure": STRUCTURE,
}

# Ten seconds or more each: unrolled loops and large decompositions.
HEAVY = {"LSTM", "GRU", "grid_sample, bicubic", "grid_sample, reflection", "bicubic", "bicubic, corners aligned"}

RECTIFIERS: dict[str, dict[str, int]] = {
    "relu function": {"relu": 1},
    "relu in place": {"relu": 1},
    "relu_ method": {"relu": 1},
    "relu reused": {"relu": 3},
    "relu6": {"relu6": 1},
    "clamp(min=0)": {"clamp": 1},
    "clamp(0, 6)": {"clamp": 1},
    "clamp_min": {"clamp": 1},
    "clamp_ in place": {"clamp": 1},
    "clamp by tensors": {"clamp": 1},
    "maximum with zeros": {"maximum": 1},
    "maximum with a constant": {"maximum": 1},
    "maximum with a buffer": {"maximum": 1},
    "max with new_zeros": {"maximum": 1},
    "where(x > 0, x, 0)": {"where": 1},
    "where(x > 0, x, zeros)": {"where": 1},
    "where(x >= 0, x, 0)": {"where": 1},
    "where(x < 0, 0, x)": {"where": 1},
    "x * (x > 0)": {"mask": 1},
    "x * (x > 0).float()": {"mask": 1},
    "threshold": {"threshold": 1},
    "leaky_relu": {"leaky_relu": 1},
    "prelu shared": {"prelu": 1},
    "prelu by channel": {"prelu": 1},
    "rrelu": {"leaky_relu": 1},
    "hardtanh from 0": {"hardtanh": 1},
    "squared relu": {"relu": 1},
    "conv1d": {"relu": 1},
    "conv3d": {"relu": 1},
    "LPPool": {"relu": 1},
    "LPPool of norm 1.5": {"relu": 1},
    "concatenation": {"relu": 1},
    "squeeze-excitation": {"relu": 1},
    "nn.TransformerEncoderLayer": {"relu": 1},
    "nn.TransformerEncoderLayer, sequence first": {"relu": 1},
    "checkpoint": {"relu": 1},
    "autocast off": {"relu": 1},
}
"""The rectifiers that an export of each part must report; it must report none for the others."""


class Whole(nn.Module):
    """A small classifier around code that takes the images and the logits."""

    def __init__(self, code: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.code = network(nn.Identity()), code

    def forward(self, x: Tensor) -> Tensor:
        return self.code(x, self.inner(x))


def by_value(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if x.mean() > 0 else y


def loop_by_value(x: Tensor, y: Tensor) -> Tensor:
    for _ in range(int(x.abs().max())):
        y = y * 2
    return y


def whole(code: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Whole(code).eval()


def part(function: Part) -> Callable[[], nn.Module]:
    return lambda: network(function, live=False)


MASK = torch.tensor([True, False, True, True, False, False])

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm of the batch": (
        lambda: network(nn.BatchNorm2d(CHANNELS, track_running_stats=False)),
        r"aten.batch_norm.default in branches.0.part \(BatchNorm2d\) takes the statistics of the batch",
    ),
    "fractional max pool": (
        lambda: network(nn.FractionalMaxPool2d(3, output_ratio=0.5)),
        r"aten.rand.default in branches.0.part \(FractionalMaxPool2d\) draws random numbers",
    ),
    "dropout that stays on": (part(lambda x: F.dropout(x, 0.5, training=True)), "aten.dropout.default .*draws random"),
    "noise": (part(lambda x: x + 0.1 * torch.randn_like(x)), "aten.randn_like.default .*draws random"),
    "median": (part(lambda x: x.flatten(2).median(2).values), r"aten.median.dim in branches.0.part \(Function\)"),
    "indexing by a mask": (part(lambda x: x[:, MASK]), r"aten.index.Tensor in branches.0.part .*: indexing by a mask"),
    "cumprod": (part(lambda x: torch.sigmoid(x).cumprod(1)), "cumprod|prod.default"),
    "distances": (
        part(lambda x: torch.cdist(x.flatten(2), x.flatten(2)[:, :3])),
        r"aten._cdist_forward.default in branches.0.part \(Function\) has no ONNX form",
    ),
    "FFT": (part(lambda x: torch.fft.rfft2(x).abs()), r"aten._fft_r2c.default in branches.0.part .* gives complex"),
    "complex numbers": (
        part(lambda x: torch.view_as_real(torch.complex(x, x * 2) ** 2)[..., 0]),
        r"aten.complex.default in branches.0.part \(Function\) gives complex numbers",
    ),
    "determinant": (
        part(lambda x: torch.linalg.det(x[:, :, :3, :3])[:, :, None]),
        "linalg_lu_solve.* has no ONNX form",
    ),
    "antialiasing": (part(resize(size=(9, 7), mode="bilinear", antialias=True)), "bilinear2d_aa.* has no ONNX form"),
    "a kernel for each image": (
        lambda: network(DynamicConvolution()),
        r"aten.conv2d.default in branches.0.part \(DynamicConvolution\): the weights of a convolution depend",
    ),
    "a kernel of the batch": (
        lambda: network(Correlation()),
        "depends on the other images of the batch",
    ),
    "grid_sample of volumes": (
        part(
            lambda x: F.grid_sample(
                x[:, None], torch.zeros(1, 2, 3, 4, 3).expand(x.shape[0], -1, -1, -1, -1), align_corners=False
            )[:, 0]
        ),
        "aten.grid_sampler.* in branches.0.part",
    ),
    "an if by value": (whole(by_value), "decides by the values of a tensor"),
    "a loop by value": (whole(loop_by_value), "the values of a tensor"),
    "a size by value": (whole(lambda x, y: y * x[x > 0].mean()), "depends on the other images of the batch"),
    "a batch of one": (
        whole(lambda x, y: y.reshape(1, -1)),
        r"returns \(1, 5\*N\) for N images instead of \(N, classes\)",
    ),
    "a batch of two": (whole(lambda x, y: y.view(2, 5)), "fixes the batch size"),
    "an if by batch size": (whole(lambda x, y: y * 3 if x.shape[0] == 2 else y), "batch size"),
    "an if for single images": (whole(lambda x, y: y * 3 if x.shape[0] == 1 else y), "batch size"),
    "statistics of the batch": (whole(lambda x, y: y - y.mean(0)), "depends on the other images"),
    "a softmax over the batch inside": (whole(lambda x, y: y * y.softmax(0)), "depends on the other images"),
    "NumPy inside": (whole(lambda x, y: y * float(x.detach().numpy().mean())), "cannot be traced"),
}
"""Name -> (network, what the one line says)."""
