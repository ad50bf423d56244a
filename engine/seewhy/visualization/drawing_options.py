"""Names and defaults of the options that control how results are drawn.

This module imports nothing, so that the command line can show its help without loading Pillow or NumPy.
"""

from __future__ import annotations

COLORMAPS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "grey")
"""Names of the colormaps, the default first."""

CANVASES = ("model", "original")
"""Names of the canvases: the model's view of the image (resized and cropped), or the whole image."""

DEFAULT_COLORMAP = COLORMAPS[0]
DEFAULT_ALPHA = 0.5
"""Default opacity of the heatmap, from 0 (invisible) to 1 (opaque)."""
DEFAULT_CANVAS = CANVASES[0]


def list_colormaps() -> list[str]:
    """Return the names of the colormaps, the default first."""
    return list(COLORMAPS)
