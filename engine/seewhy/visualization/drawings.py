"""Draw attributions in a style: overlays of maps, and gradients as RGB, as heatmaps or as overlays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from seewhy._core import gradient_rgb, max_abs, minmax
from seewhy._shared.arrays import Bytes, Floats
from seewhy.errors import ArgumentError
from seewhy.images.preprocessing import ModelView
from seewhy.visualization.color_scale import ColorScale
from seewhy.visualization.drawing_options import GRADIENT_QUANTILE
from seewhy.visualization.figure_style import FigureStyle
from seewhy.visualization.overlays import Box, heat_colors, overlay_pixels, rgb, view_box

_OWN_RANGE, _COMMON = "scaled to its own range", "on a common scale"
_GREY = "grey"  # the colormap of the scale of values that are drawn as RGB
_EMPTY = (236, 236, 236)  # where a canvas has no drawing
_CLIPPED = f"clipped at {100 * GRADIENT_QUANTILE:g} % of |values|"


@dataclass(frozen=True)
class Drawing:
    """A drawn explanation of one image."""

    pixels: Bytes
    """The bare figure, uint8 of shape (H, W, 3)."""
    scale: ColorScale
    """Meaning of its colours."""
    view: Box | None = None
    """Part of the figure that the model saw; None if it saw all of it."""
    note: str = ""
    """Text about the part of the image that is shown; empty if that is what the style asks for."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def image(self) -> Image.Image:
        """The bare figure as an image."""
        return Image.fromarray(self.pixels)


def draw_map(image: ModelView, values: Floats, style: FigureStyle) -> Drawing:
    """Draw the attributions of a map method as an overlay.

    Args:
        image: The image.
        values: Attributions, float32 of shape (H, W).
        style: The style. With a scale S, the heat of a value v is v / S, and negative values have none.

    Returns:
        The drawing.

    Raises:
        ImageError: If the original image can no longer be read.
    """
    low, high = float(values.min()), float(values.max())
    constant = low if low == high else None
    if style.scale is None:
        heat, scale = minmax(values[None], 1)[0], ColorScale(low, high, style.colormap, _OWN_RANGE, None, constant)
    else:
        heat = np.clip(_divided(values, style.scale), 0, 1)
        scale = ColorScale(0, style.scale, style.colormap, _COMMON, high, constant)
    return _overlay(image, heat, style, scale)


def draw_gradient(image: ModelView, values: Floats, style: FigureStyle) -> Drawing:
    """Draw the attributions of a gradient method.

    `rgb` shows the signed values on the model's view. Robust scaling draws -L as black, 0 as grey 128 and L as white,
    where L is the scale, or the smallest value that `GRADIENT_QUANTILE` of all |value| do not exceed. `heatmap` and
    `overlay` show the maximum over the channels of |value| (Simonyan et al. 2013, section 3.1), scaled from 0 to L.
    With `minmax` and without a scale, values are drawn from their minimum to their maximum.

    Args:
        image: The image.
        values: Attributions, float32 of shape (C, H, W).
        style: The style.

    Returns:
        The drawing.

    Raises:
        ArgumentError: If the style is `rgb`, and there are neither 1 nor 3 channels.
        ImageError: If the original image can no longer be read.
    """
    signed = style.gradients == "rgb"
    if signed and len(values) not in (1, 3):
        raise ArgumentError(
            f"gradients must have 1 or 3 channels to be drawn as RGB, not {len(values)}; draw them with "
            f"gradients='heatmap' (--gradients heatmap), or use the attributions themselves"
        )
    drawn = values if signed else max_abs(values[None], 1)[0]
    low, high = float(drawn.min()), float(drawn.max())
    constant = low if low == high else None
    colormap = _GREY if signed else style.colormap
    if style.scale is None and style.gradient_scaling == "minmax":
        scale = ColorScale(low, high, colormap, _OWN_RANGE, None, constant, signed)
        if signed:
            return Drawing(gradient_rgb(values[None], 1)[0], scale, note=_view_note(style))
        return _heat(image, minmax(drawn[None], 1)[0], style, scale)
    limit, rule = (robust_limit(drawn), _CLIPPED) if style.scale is None else (style.scale, _COMMON)
    scale = ColorScale(-limit if signed else 0, limit, colormap, rule, max(-low, high), constant, signed)
    if signed:
        return Drawing(_symmetric(values, limit), scale, note=_view_note(style))
    return _heat(image, np.minimum(_divided(drawn, limit), np.float32(1)), style, scale)


def robust_limit(values: Floats) -> float:
    """Return the smallest |value| that at least `GRADIENT_QUANTILE` of all |value| do not exceed.

    If that is 0, because most values are, return the maximum.
    """
    strength = np.abs(values).ravel()
    rank = int(np.ceil(GRADIENT_QUANTILE * strength.size)) - 1
    limit = float(np.partition(strength, rank)[rank])
    return limit if limit > 0 else float(strength.max())


def _symmetric(values: Floats, limit: float) -> Bytes:
    """Return (H,W,3) bytes for values (C,H,W): -limit becomes 0, 0 becomes 128, and limit becomes 255."""
    level = _divided(values, limit)
    np.clip(level, -1, 1, out=level)
    level *= np.float32(127.5)
    level += np.float32(127.5)
    pixels = np.empty((*values.shape[1:], 3), np.uint8)
    # Channel by channel, which takes a fifth of the time of one transposed copy. A single channel is drawn in grey.
    for channel in range(3):
        pixels[..., channel] = np.rint(level[channel % len(level)])
    return pixels


def _divided(values: Floats, limit: float) -> Floats:
    """Return values / limit; zeros if the limit is 0, because all values are 0 then."""
    with np.errstate(over="ignore"):
        return values / np.float32(limit or 1)


def _heat(image: ModelView, heat: Floats, style: FigureStyle, scale: ColorScale) -> Drawing:
    """Draw the heatmap (H,W) of a gradient, alone or on the image."""
    if style.gradients == "heatmap":
        return Drawing(heat_colors(heat, style.colormap), scale, note=_view_note(style))
    return _overlay(image, heat, style, scale)


def _overlay(image: ModelView, heat: Floats, style: FigureStyle, scale: ColorScale) -> Drawing:
    return _with_view(Drawing(overlay_pixels(image, heat, style), scale), image, style)


def draw_input(image: ModelView, style: FigureStyle) -> Drawing:
    """Draw the image itself, on the canvas of the style."""
    pixels = image.original() if style.canvas == "original" else rgb(image.view)
    return _with_view(Drawing(pixels, ColorScale(0, 255, _GREY, "")), image, style)


def _with_view(drawing: Drawing, image: ModelView, style: FigureStyle) -> Drawing:
    """Return the drawing with the part that the model saw, if it shows the whole image."""
    if style.canvas == "model" or (view := view_box(image, drawing.size)) is None:
        return drawing
    return replace(drawing, view=view, note="frame: the part that the model saw")


def _view_note(style: FigureStyle) -> str:
    """Return a note for figures that show the model's view even if the style asks for the whole image."""
    return "" if style.canvas == "model" else "shows the part that the model saw"


def on_canvas(drawing: Drawing, image: ModelView, size: tuple[int, int]) -> Drawing:
    """Place a drawing of the model's view on an empty canvas of the whole image's (width, height)."""
    if drawing.size == size:
        return drawing
    left, top, right, bottom = box = view_box(image, size) or (0, 0, *size)
    canvas = Image.new("RGB", size, _EMPTY)
    canvas.paste(drawing.image.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    return replace(drawing, pixels=np.array(canvas), view=box)
