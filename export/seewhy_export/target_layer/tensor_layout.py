"""Layouts of a feature map in a value: (N, C, h, w), channels-last or tokens, and conversions between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

N, C, H, W, PLACES = "N", "C", "h", "w", "places"
_MAP, _TOKENS = (N, C, H, W), (N, PLACES, C)


@dataclass(frozen=True)
class Layout:
    """What each dimension of a value is, all of its places being there once."""

    axes: tuple[str, ...]
    """One of N, C, h, w or places (h and w flattened) for each dimension."""
    size: tuple[int, int]
    """(h, w) of the map."""
    prefix: int = 0
    """Tokens before the places that belong to none: class, distillation and register tokens."""
    suffix: int = 0
    """Such tokens behind the places."""
    mirrored: tuple[bool, bool] = (False, False)
    """Whether h and w run the other way than in the image."""

    @property
    def form(self) -> str:
        """The file contract's name of this layout."""
        if self.axes == _MAP:
            return "map"
        return "tokens" if PLACES in self.axes else "channels-last"

    @property
    def places(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def others(self) -> int:
        """How many tokens belong to no place."""
        return self.prefix + self.suffix

    @property
    def spatial(self) -> list[int]:
        """The dimensions that the places lie in."""
        return [index for index, axis in enumerate(self.axes) if axis in (H, W, PLACES)]

    def to_map(self, value: Tensor) -> Tensor:
        """A value of this layout as (N, C, h, w), without the tokens that belong to no place."""
        if PLACES not in self.axes:
            return self._upright(_reorder(value, self.axes, _MAP))
        tokens = _reorder(value, self.axes, _TOKENS)[:, self.prefix : self.prefix + self.places]
        return self._upright(tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *self.size))

    def from_map(self, activations: Tensor, value: Tensor) -> Tensor:
        """The inverse; the tokens that belong to no place come from `value`."""
        activations = self._upright(activations)
        if PLACES not in self.axes:
            return _reorder(activations, _MAP, self.axes)
        tokens = activations.flatten(2).transpose(1, 2)
        if self.others:
            all_tokens = _reorder(value, self.axes, _TOKENS)
            outside = (all_tokens[:, : self.prefix], tokens, all_tokens[:, self.prefix + self.places :])
            tokens = torch.cat([part for part in outside if part.shape[1]], 1)
        return _reorder(tokens, _TOKENS, self.axes)

    def _upright(self, maps: Tensor) -> Tensor:
        dimensions = [dimension for dimension, turned in zip((2, 3), self.mirrored, strict=True) if turned]
        return maps.flip(dimensions) if dimensions else maps


def _reorder(value: Tensor, axes: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    return value if axes == wanted else value.permute([axes.index(axis) for axis in wanted])
