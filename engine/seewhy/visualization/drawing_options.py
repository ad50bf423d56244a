"""Names and defaults of the options that control how results are drawn.

This module imports nothing, so that the command line can show its help without loading Pillow or NumPy.
"""

from __future__ import annotations

COLORMAPS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "grey")
"""Names of the colormaps, the default first."""

CANVASES = ("model", "original")
"""Names of the canvases: the model's view of the image (resized and cropped), or the whole image."""

BLENDS = ("constant", "heat")
"""Ways to blend a heatmap onto an image: the same opacity everywhere, or an opacity that follows the heat."""

GRADIENT_STYLES = ("rgb", "heatmap", "overlay")
"""Ways to draw gradients: their signed values as RGB, or max over the channels of |g| as a heatmap or an overlay."""

GRADIENT_SCALINGS = ("robust", "minmax")
"""Ways to scale drawn gradients: clipped at a quantile and symmetric about 0, or from their minimum to their maximum.
"""

SHEETS = ("auto", "always", "side-by-side", "never")
"""Rules for contact sheets: write them if there are several methods or classes, for every image, in one row (by default
of backprop and guided backprop, as in reports), or not at all."""

DEFAULT_COLORMAP = COLORMAPS[0]
DEFAULT_ALPHAS = {"constant": 0.5, "heat": 0.8}
"""Default opacity of a heatmap (of its hottest place, for `heat`) by the kind of blend; 0 is invisible, 1 is opaque."""
DEFAULT_CANVAS = CANVASES[0]
DEFAULT_BLEND = BLENDS[0]
DEFAULT_GRADIENT_STYLE = GRADIENT_STYLES[0]
DEFAULT_GRADIENT_SCALING = GRADIENT_SCALINGS[0]
DEFAULT_SHEET = SHEETS[0]

GRADIENT_QUANTILE = 0.98
"""Share of the absolute values of a gradient that `robust` scaling draws without clipping.

The shares 0.95, 0.98, 0.99, 0.995 and 0.999 were compared on two networks and five images. 0.98 shows the object best:
smaller shares turn noise into hard dots, larger ones leave most of the figure grey. A gamma below 1 makes noise
brighter.
"""


def list_colormaps() -> list[str]:
    """Return the names of the colormaps, the default first."""
    return list(COLORMAPS)
