"""Scale of colours in a figure: the values at its ends, and how they were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from seewhy._shared.arrays import Bytes
from seewhy.visualization.colormaps import palette


@dataclass(frozen=True)
class ColorScale:
    """Meaning of the colours of one figure."""

    low: float
    """Value of the lowest colour. Smaller values are drawn like this one."""
    high: float
    """Value of the highest colour. Larger values are drawn like this one."""
    colormap: str
    """Name of the colormap."""
    rule: str
    """Text that says how the values at the ends were chosen."""
    maximum: float | None = None
    """Largest |value| of the figure, if the ends do not tell it."""
    constant: float | None = None
    """The value of all places if they have the same, otherwise None."""
    signed: bool = False
    """True for signed values that are drawn as RGB: black is the lowest value, white the highest."""

    @property
    def note(self) -> str:
        """The rule and the maximum as text."""
        return self.rule if self.maximum is None else f"{self.rule}, max {number_text(self.maximum)}"

    @property
    def remark(self) -> str:
        """Text about a constant map, such as `0 everywhere`; empty for other maps."""
        return "" if self.constant is None else f"{number_text(self.constant)} everywhere"

    @property
    def ends(self) -> tuple[str, str]:
        """The values at the ends as text."""
        return number_text(self.low), number_text(self.high)

    @property
    def lines(self) -> tuple[str, str]:
        """The ends or the remark, and the note, for figures without a bar."""
        return self.remark or " to ".join(self.ends), self.note


def number_text(value: float) -> str:
    """Return a number with three significant digits, such as `0.0123`, `-4.5` or `1.2e-05`."""
    return "0" if value == 0 else f"{float(value):.3g}"


@lru_cache(maxsize=64)
def color_bar(colormap: str, width: int, height: int) -> Bytes:
    """Return a horizontal bar of a colormap.

    Args:
        colormap: Name of the colormap.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        Read-only uint8 array of shape (height, width, 3), lowest colour first.
    """
    row = palette(colormap)[np.linspace(0, 255, width).round().astype(int)]
    return np.broadcast_to(row, (height, width, 3))
