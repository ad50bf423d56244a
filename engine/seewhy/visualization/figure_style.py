"""Style of figures: the options of drawing, validated once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.visualization import drawing_options as options

# Values between these limits and their ratios are safe in float32.
_SMALLEST, _LARGEST = 1e-30, 1e30
_FIRST = re.compile(r"first:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class FigureStyle:
    """Options of drawing.

    Raises:
        ArgumentError: If a name is unknown, alpha is outside [0, 1], or the scale is not a positive number.
    """

    colormap: str = options.DEFAULT_COLORMAP
    """Name of the colormap of heatmaps."""
    alpha: float | None = None
    """Opacity of the heatmap, from 0 to 1. None becomes the default of the blend."""
    canvas: str = options.DEFAULT_CANVAS
    """Image that overlays are drawn on: `model` (the model's view) or `original` (the whole image)."""
    blend: str = options.DEFAULT_BLEND
    """`constant`: alpha is the opacity everywhere. `heat`: the opacity is alpha times the heat."""
    gradients: str = options.DEFAULT_GRADIENT_STYLE
    """`rgb`: signed values. `heatmap` and `overlay`: maximum over the channels of |value|."""
    gradient_scaling: str = options.DEFAULT_GRADIENT_SCALING
    """`robust`: symmetric about 0 and clipped at a quantile of |value|. `minmax`: from minimum to maximum."""
    scale: float | None = None
    """Value of the hottest colour in every figure; None scales each figure by its own values."""
    plain: bool = False
    """True for figures without a caption."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("colormap", options.COLORMAPS),
            ("canvas", options.CANVASES),
            ("blend", options.BLENDS),
            ("gradients", options.GRADIENT_STYLES),
            ("gradient_scaling", options.GRADIENT_SCALINGS),
        ):
            checks.one_of(name, getattr(self, name), allowed)
        alpha = options.DEFAULT_ALPHAS[self.blend] if self.alpha is None else self.alpha
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= alpha <= 1:
            raise ArgumentError(f"alpha must be between 0 and 1, not {brief(alpha)}")
        object.__setattr__(self, "alpha", float(alpha))
        if self.scale is not None:
            object.__setattr__(self, "scale", _positive(self.scale))
        object.__setattr__(self, "plain", checks.flag("plain", self.plain))

    @property
    def opacity(self) -> float:
        """Opacity of the heatmap, from 0 to 1."""
        assert self.alpha is not None
        return self.alpha


def read_scale(value: Any) -> float | int | None:
    """Validate the scale of a job.

    Args:
        value: None, a positive number (also as text), or `first:N`.

    Returns:
        None, the number as a float, or N as an int: the number of images whose maxima give the scale.

    Raises:
        ArgumentError: If it is none of these.
    """
    if isinstance(value, str):
        first = _FIRST.fullmatch(value)
        if first is not None:
            return int(first[1])
        try:
            value = float(value)
        except ValueError:
            pass
    return None if value is None else _positive(value)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not _SMALLEST <= float(value) <= _LARGEST:
        raise ArgumentError(
            f"scale must be a number from {_SMALLEST:g} to {_LARGEST:g}, or first:N in a job (the maximum of the first "
            f"N images, such as first:100), not {brief(value)}"
        )
    return float(value)
