"""Layouts of a feature map in a tensor: (N, C, h, w), channels-last or tokens, and conversion between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

N, C, H, W, POSITIONS = "N", "C", "h", "w", "positions"
"""Kinds of dimensions: batch, channels, rows, columns, and rows and columns flattened into one."""
_MAP, _TOKENS = (N, C, H, W), (N, POSITIONS, C)


@dataclass(frozen=True)
class Layout:
    """Layout of a tensor that holds every position of a map exactly once."""

    axes: tuple[str, ...]
    """Kind of each dimension: N, C, h, w or positions."""
    size: tuple[int, int]
    """Size (h, w) of the map."""
    prefix: int = 0
    """Number of tokens before the positions that belong to none: class, distillation and register tokens."""
    suffix: int = 0
    """Number of such tokens after the positions."""
    mirrored: tuple[bool, bool] = (False, False)
    """True if h and w run in the opposite direction to the image's."""

    @property
    def form(self) -> str:
        """Name of the layout in the file contract: `map`, `channels-last` or `tokens`."""
        if self.axes == _MAP:
            return "map"
        return "tokens" if POSITIONS in self.axes else "channels-last"

    @property
    def position_count(self) -> int:
        """Number of positions of the map."""
        return self.size[0] * self.size[1]

    @property
    def extra_tokens(self) -> int:
        """Number of tokens that belong to no position."""
        return self.prefix + self.suffix

    @property
    def spatial(self) -> list[int]:
        """Indices of the dimensions that hold positions."""
        return [index for index, axis in enumerate(self.axes) if axis in (H, W, POSITIONS)]

    def to_map(self, value: Tensor) -> Tensor:
        """Convert a tensor of this layout to (N, C, h, w), without the tokens that belong to no position."""
        if POSITIONS not in self.axes:
            return self._upright(_reorder(value, self.axes, _MAP))
        tokens = _reorder(value, self.axes, _TOKENS)[:, self.prefix : self.prefix + self.position_count]
        return self._upright(tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *self.size))

    def from_map(self, activations: Tensor, value: Tensor) -> Tensor:
        """Convert (N, C, h, w) back to this layout.

        Args:
            activations: Map of shape (N, C, h, w).
            value: Tensor of this layout, from which the tokens that belong to no position are taken.

        Returns:
            Tensor of this layout.
        """
        activations = self._upright(activations)
        if POSITIONS not in self.axes:
            return _reorder(activations, _MAP, self.axes)
        tokens = activations.flatten(2).transpose(1, 2)
        if self.extra_tokens:
            all_tokens = _reorder(value, self.axes, _TOKENS)
            groups = (all_tokens[:, : self.prefix], tokens, all_tokens[:, self.prefix + self.position_count :])
            tokens = torch.cat([group for group in groups if group.shape[1]], 1)
        return _reorder(tokens, _TOKENS, self.axes)

    def _upright(self, maps: Tensor) -> Tensor:
        """Flip the mirrored dimensions of (N, C, h, w)."""
        dimensions = [dimension for dimension, turned in zip((2, 3), self.mirrored, strict=True) if turned]
        return maps.flip(dimensions) if dimensions else maps


def _reorder(value: Tensor, axes: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    """Permute dimensions of the given kinds into another order."""
    return value if axes == wanted else value.permute([axes.index(axis) for axis in wanted])
