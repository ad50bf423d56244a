"""Ways of connecting, indexing and resampling maps that must export, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.module_battery.networks import CHANNELS, Part


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, 3, 1), nn.Conv2d(3, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(self.pool(x)), inplace=True)))


class Attention(nn.Module):
    """Attention over the positions of a map, with `attend` as one of several implementations."""

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
    """Position embeddings read from a table by index, as in Swin."""

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
