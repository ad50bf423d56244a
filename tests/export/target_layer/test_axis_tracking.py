"""Tests of `seewhy_export.target_layer.axis_tracking`: spatial dimensions are followed or known to be lost.

Each network reads its own map in a way that a wrong guess changes: the layer is compared with the map that the network
has before or after the detour.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import TargetLayer, target_layer

SIZE = (16, 24)
CHANNELS = 6


class Detour(nn.Module):
    """Network that passes features (N, 6, 8, 12) through `path`, the layer `after` and `pool`."""

    def __init__(self, path: Callable[[Tensor], Tensor], layer: nn.Module, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, CHANNELS, 2, stride=2)
        self.after = layer
        self.path, self.pool = path, pool
        with torch.no_grad():
            pooled = pool(layer(path(self.features(torch.zeros(2, 3, *SIZE)))))
        self.head = nn.Linear(pooled.shape[1], 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.after(self.path(self.features(x)))))


def choose(module: nn.Module, layer: str | None = None) -> TargetLayer:
    return target_layer(trace_forward(prepare(module), SIZE, 3, layer), layer)


def windows(x: Tensor, size: int = 4) -> Tensor:
    """(N, C, h, w) -> (N * windows, size * size, C)."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // size, size, w // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)


def windows_merged(x: Tensor, size: int = 4, h: int = 8, w: int = 12) -> Tensor:
    """Invert `windows`, into channels-last."""
    x = x.reshape(-1, h // size, w // size, size, size, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])


def attend(x: Tensor) -> Tensor:
    return (x @ x.transpose(-2, -1)).softmax(-1) @ x


def merge(x: Tensor) -> Tensor:
    """Swin's patch merging, channels-last: (N, h, w, C) -> (N, h/2, w/2, 4 C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)


def mean_last(x: Tensor) -> Tensor:
    return x.mean((1, 2))


KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module, Callable[[Tensor], Tensor], str, tuple[int, int]]] = {
    "windows and back": (
        lambda x: windows_merged(attend(windows(x))),
        nn.Linear(CHANNELS, 7),
        mean_last,
        "channels-last",
        (8, 12),
    ),
    "shifted windows and back": (
        lambda x: windows_merged(attend(windows(x.roll((-2, -2), (2, 3))))).roll((2, 2), (1, 2)),
        nn.Linear(CHANNELS, 7),
        mean_last,
        "channels-last",
        (8, 12),
    ),
    "patch merging": (
        lambda x: merge(x.permute(0, 2, 3, 1)),
        nn.Linear(4 * CHANNELS, 7),
        mean_last,
        "channels-last",
        (4, 6),
    ),
    "sliced merging": (
        lambda x: torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2]], 1),
        nn.Conv2d(2 * CHANNELS, 7, 3, padding=1),
        lambda x: x.mean((2, 3)),
        "map",
        (4, 6),
    ),
    "transposed": (
        lambda x: x.transpose(2, 3),
        nn.Conv2d(CHANNELS, 7, 3, padding=1),
        lambda x: x.mean((2, 3)),
        "channels-last",
        (8, 12),
    ),
    "heads": (
        lambda x: attend(x.flatten(2).transpose(1, 2).reshape(-1, 96, 2, 3).transpose(1, 2)).transpose(1, 2).flatten(2),
        nn.Linear(CHANNELS, 7),
        lambda x: x.mean(1),
        "tokens",
        (8, 12),
    ),
    "attention the other way round": (
        lambda x: x.flatten(2) @ (x.flatten(2).transpose(1, 2) @ x.flatten(2)).softmax(1),
        nn.Conv1d(CHANNELS, 7, 1),
        lambda x: x.mean(2),
        "tokens",
        (8, 12),
    ),
    "einsum": (
        lambda x: torch.einsum("nchw,cd->nhwd", x, torch.eye(CHANNELS)),
        nn.Linear(CHANNELS, 7),
        mean_last,
        "channels-last",
        (8, 12),
    ),
    "channels in another order": (
        lambda x: x.flip(1)[:, torch.arange(CHANNELS - 1, -1, -1)],
        nn.Conv2d(CHANNELS, 7, 3),
        lambda x: x.mean((2, 3)),
        "map",
        (6, 10),
    ),
    "flipped": (
        lambda x: x.flip(3, 2),
        nn.Conv2d(CHANNELS, 7, 3, padding=1),
        lambda x: x.mean((2, 3)),
        "map",
        (8, 12),
    ),
    "pixel unshuffle": (
        lambda x: nn.functional.pixel_unshuffle(x, 2),
        nn.Conv2d(4 * CHANNELS, 7, 1),
        lambda x: x.mean((2, 3)),
        "map",
        (4, 6),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_axes_choose_the_layer_after_the_detour(name: str) -> None:
    path, layer, pool, form, size = KNOWN[name]
    module = Detour(path, layer, pool).eval()
    chosen = choose(module)
    assert (chosen.name, chosen.layout.form, chosen.layout.size) == ("after", form, size)
    assert choose(module, "after").layout == chosen.layout
    # With features that are the numbers of their positions, the layout returns every number to its own position.
    numbers = torch.arange(8.0 * 12).reshape(1, 1, 8, 12).expand(2, CHANNELS, -1, -1)
    if name in KEEPING_POSITIONS:
        value = path(numbers.contiguous())
        assert torch.equal(chosen.layout.to_map(value)[0, 0], numbers[0, 0])


KEEPING_POSITIONS = {"transposed", "einsum", "flipped", "channels in another order"}


REVERSED = torch.arange(95, -1, -1)
MIXING = torch.randn(96, 96)

LOST: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module, Callable[[Tensor], Tensor]]] = {
    "tokens as a column": (
        lambda x: x.flatten(2).unsqueeze(-1),
        nn.Conv2d(CHANNELS, 7, 1),
        lambda x: x.mean((2, 3)),
    ),
    "tokens flipped": (
        lambda x: x.flatten(2).flip(2).unflatten(2, (8, 12)),
        nn.Conv2d(CHANNELS, 7, 3),
        lambda x: x.mean((2, 3)),
    ),
    "rolled": (lambda x: x.roll(3, 2), nn.Conv2d(CHANNELS, 7, 3), lambda x: x.mean((2, 3))),
    "tokens in another order": (
        lambda x: x.flatten(2).transpose(1, 2)[:, REVERSED],
        nn.Linear(CHANNELS, 7),
        lambda x: x.mean(1),
    ),
    "index_select": (
        lambda x: x.flatten(2).index_select(2, REVERSED),
        nn.Conv1d(CHANNELS, 7, 1),
        lambda x: x.mean(2),
    ),
    "running sum": (lambda x: x.flatten(2).transpose(1, 2).cumsum(1), nn.Linear(CHANNELS, 7), lambda x: x.mean(1)),
    "windows in the batch": (
        lambda x: windows(x).transpose(1, 2).reshape(-1, CHANNELS, 4, 4),
        nn.Conv2d(CHANNELS, 7, 3, padding=1),
        lambda x: x.mean((2, 3)).reshape(-1, 6, 7).mean(1),
    ),
    "positions mixed": (
        lambda x: x.flatten(2) @ MIXING,
        nn.Conv1d(CHANNELS, 7, 1),
        lambda x: x.mean(2),
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_lost_axes_choose_an_earlier_layer(name: str) -> None:
    """The automatic choice is an earlier layer, and the layer itself is refused by name."""
    module = Detour(*LOST[name]).eval()
    assert choose(module).name == "features"
    with pytest.raises(ExportError, match=r"'after' returns shape .* spatial dimensions are unknown"):
        choose(module, "after")


class Pooled(nn.Module):
    """Network with features followed by pooling that is not a layer."""

    def __init__(self, pool: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.ReLU())
        self.gate = nn.Conv2d(8, 1, 1)
        self.clusters = nn.Conv2d(8, 4, 1)
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8)
        self.pool = pool
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self, self.features(x)))


def by_attention(m: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    query = m.query.expand(x.shape[0], -1, -1)
    return nn.functional.scaled_dot_product_attention(query, m.key(tokens), m.value(tokens))[:, 0]


def by_class_token(m: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    return nn.functional.scaled_dot_product_attention(m.key(tokens), m.key(tokens), m.value(tokens))[:, 0]


POOLS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "generalised mean": lambda m, x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "attention weights": lambda m, x: (m.gate(x).flatten(2).softmax(-1) * x.flatten(2)).sum(-1),
    "sigmoid gate": lambda m, x: (m.gate(x).sigmoid() * x).mean((2, 3)),
    "soft assignment": lambda m, x: torch.einsum("nkp,ncp->nkc", m.clusters(x).flatten(2).softmax(1), x.flatten(2)).sum(
        1
    ),
    "log-sum-exp": lambda m, x: x.flatten(2).logsumexp(2),
    "attention": by_attention,
    "attention of a mean": by_class_token,
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_operators_are_not_chosen(name: str) -> None:
    chosen = choose(Pooled(POOLS[name]).eval())
    assert chosen.shape == (8, 8, 12)
    assert chosen.name in ("features", "clamp", "mul") and chosen.layout.extra_tokens == 0


class Registers(nn.Module):
    """Transformer block with tokens before and after the positions that belong to none."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, 3, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.query_norm, self.key_norm = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mlp = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        extra = self.extra.expand(x.shape[0], -1, -1)
        x = torch.cat([extra[:, :1], self.patches(x).flatten(2).transpose(1, 2), extra[:, 1:]], 1)
        y = self.norm1(x)
        q, k = self.query_norm(self.query(y)), self.key_norm(self.key(y))
        x = x + nn.functional.scaled_dot_product_attention(q, k, self.value(y))
        return self.head((x + self.mlp(self.norm2(x)))[:, -1])


def test_extra_tokens_on_both_sides_and_norms_of_queries_and_keys() -> None:
    module = Registers().eval()
    chosen = choose(module)
    assert (chosen.name, chosen.layout.prefix, chosen.layout.suffix, chosen.shape) == ("norm1", 1, 2, (8, 4, 6))
    value = torch.randn(2, 27, 8)
    maps = chosen.layout.to_map(value)
    assert torch.equal(maps[1, 3, 2, 5], value[1, 1 + 2 * 6 + 5, 3])
    assert torch.equal(chosen.layout.from_map(maps, value), value)


def test_patches_made_by_reshaping() -> None:
    class Reshaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(48, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.reshape(-1, 3, 4, 4, 6, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 24, 48)
            return self.head(self.embed(x).mean(1))

    chosen = choose(Reshaped().eval())
    assert (chosen.name, chosen.layout.form, chosen.shape) == ("embed", "tokens", (8, 4, 6))
