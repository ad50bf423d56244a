"""Networks that the exporter's tests export, and random weights for them that keep every branch active."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seewhy_export.sources.torchvision_import import import_torchvision

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def live_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw random parameters and buffers that leave no branch inactive.

    Default initial weights hide faults: heads and biases are zero, and norms start at zero or one. Convolutions are
    scaled so that the variance stays the same from rectifier to rectifier.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    def normal(like: Tensor, std: float) -> Tensor:
        return std * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for part in module.modules():
            for name, value in part.named_parameters(recurse=False):
                if value.dim() > 1 and value[0].numel() > 1:
                    value.copy_(normal(value, (2.0 / value[0].numel()) ** 0.5))
                elif name == "bias":
                    value.copy_(normal(value, 0.02))
                else:
                    value.copy_(uniform(value, 0.5, 1.5))
            if isinstance(part, BATCH_NORMS) and part.running_mean is not None:
                part.running_mean.copy_(normal(part.running_mean, 0.1))
                part.running_var.copy_(uniform(part.running_var, 0.5, 1.5))
    return module


def set_batch_norm_statistics(module: nn.Module, images: Tensor, seed: int = 0) -> nn.Module:
    """Set the running statistics of batch norms close to those of `images` (N, C, H, W), as training would.

    With other statistics, activations grow or vanish from layer to layer, and a deep network becomes chaotic: its
    outputs then depend mostly on float32 rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [part for part in module.modules() if isinstance(part, BATCH_NORMS)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            shift = 0.1 * torch.randn(norm.running_mean.shape, generator=generator)
            norm.running_mean.add_(shift * norm.running_var.sqrt())
            norm.running_var.mul_(0.7 + 0.6 * torch.rand(norm.running_var.shape, generator=generator))
    return module.eval()


def torchvision_network(name: str) -> nn.Module:
    """Return a torchvision classifier with weights from `live_weights`, in evaluation mode."""
    models = import_torchvision().models
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return live_weights(models.get_model(name, weights=None, **options)).eval()


class Branches(nn.Module):
    """A small network with structures that are hard to differentiate: branches, a skip, overlapping pools, strides.

    Its rectifiers include a function, a module that works in place, a module that is used twice, ReLU6 and clamp.
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


class Block(nn.Module):
    """A transformer block that normalizes before attention and MLP."""

    def __init__(self, width: int, batch_first: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=batch_first)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A vision transformer for images of 3x16x24 with 4x6 patches; its head reads the class token or the mean."""

    def __init__(self, class_tokens: int = 1, width: int = 8, classes: int = 7, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.tokens = nn.Parameter(torch.zeros(1, class_tokens, width)) if class_tokens else None
        self.positions = nn.Parameter(torch.zeros(1, 24 + class_tokens, width))
        self.blocks = nn.ModuleList([Block(width, batch_first), Block(width, batch_first)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.tokens is not None:
            x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.positions
        x = x if self.batch_first else x.transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        x = x if self.batch_first else x.transpose(0, 1)
        return self.head(x.mean(1) if self.tokens is None else x[:, 0])


class ChannelsLast(nn.Module):
    """A network whose maps are (N, h, w, C) from the first convolution on, as in Swin and ConvNeXt."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.LayerNorm(8)
        self.merge = nn.Linear(32, 12, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = self.merge(x)
        x = self.norm(x + self.mlp(x))
        return self.head(x.mean((1, 2)))


def stacked(rectifier: Callable[[], nn.Module], pool: nn.Module) -> nn.Sequential:
    """Return three convolutions with a rectifier behind each, for images of 16 x 16 and six classes.

    Its head has separate weights for each position of the map, so the gradient varies over every map.
    """
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 8, 3, padding=1),
            first_act=rectifier(),
            pool=pool,
            second=nn.Conv2d(8, 12, 3, padding=1),
            second_act=rectifier(),
            third=nn.Conv2d(12, 8, 3, stride=2),
            third_act=rectifier(),
            flat=nn.Flatten(),
            head=nn.Linear(8 * 9, 6),
        )
    )
