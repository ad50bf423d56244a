"""Overlays of heatmaps on images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from seewhy._core import overlay, overlay_maps
from seewhy._shared.arrays import Bytes, Floats
from seewhy.images.preprocessing import ModelView
from seewhy.images.resizing import Placement
from seewhy.visualization.colormaps import palette
from seewhy.visualization.figure_style import FigureStyle

Box: TypeAlias = tuple[int, int, int, int]
"""Part of an image: (left, top, right, bottom) in pixels, where the last two are the first ones outside."""


def overlays_in_style(images: Sequence[ModelView], heatmaps: Iterable[Floats], style: FigureStyle) -> list[Image.Image]:
    """Blend heatmaps onto images.

    Args:
        images: The N images.
        heatmaps: N heatmaps, float32 of shape (H, W) with values in [0, 1].
        style: The style: colormap, opacity, canvas and blend.

    Returns:
        N RGB images.

    Raises:
        ImageError: If the original image can no longer be read.
    """
    pairs = zip(images, heatmaps, strict=True)
    return [Image.fromarray(overlay_pixels(image, heatmap, style)) for image, heatmap in pairs]


def overlays_of_maps(
    images: Sequence[ModelView], maps: Floats, rectified: bool, colormap: str, alpha: float
) -> list[Image.Image]:
    """Upsample and scale CAM maps and blend them onto the model's view of the images, in one pass.

    The result has the same bytes as `overlays_in_style` with the heatmaps of the maps.

    Args:
        images: The N images.
        maps: Maps before ReLU and upsampling, float32 of shape (N, h, w).
        rectified: True to apply a ReLU to the maps first.
        colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
        alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).

    Returns:
        N RGB images.

    Raises:
        ArgumentError: If the colormap is unknown.
    """
    views = np.stack([rgb(image.view) for image in images])
    blended = overlay_maps(views, maps, palette(colormap), alpha, rectified)
    return [Image.fromarray(image) for image in blended]


def rgb(view: Bytes) -> Bytes:
    """Convert a uint8 (H,W,1) or (H,W,3) array to a contiguous (H,W,3) array."""
    return np.ascontiguousarray(np.broadcast_to(view, (*view.shape[:2], 3)))


def heat_colors(heatmap: Floats, colormap: str) -> Bytes:
    """Return the colours (H, W, 3) of a heatmap of shape (H, W) with values in [0, 1]."""
    return palette(colormap)[_entries(heatmap)]


def view_box(image: ModelView, size: tuple[int, int]) -> Box | None:
    """Return the part of the whole image that the model saw, or None if it saw all of it.

    Args:
        image: The image.
        size: (width, height) of the whole image, in pixels.

    Returns:
        The part, in pixels.
    """
    box = _view_box(image, size)
    return None if box == (0, 0, *size) else box


def _view_box(image: ModelView, size: tuple[int, int]) -> Box:
    place, (height, width) = image.placement, image.view.shape[:2]
    rows = _visible_pixels(place.top, place.scale_y, height, size[1])
    columns = _visible_pixels(place.left, place.scale_x, width, size[0])
    return columns.start, rows.start, columns.stop, rows.stop


def overlay_pixels(image: ModelView, heatmap: Floats, style: FigureStyle) -> Bytes:
    """Draw a heatmap (H, W) on the part of the canvas that the model saw, and leave the rest unchanged."""
    if style.canvas == "model":
        return _blend(rgb(image.view), heatmap, style)
    canvas = image.original()
    left, top, right, bottom = _view_box(image, (canvas.shape[1], canvas.shape[0]))
    rows, columns = slice(top, bottom), slice(left, right)
    box = _heatmap_box(image.placement, rows, columns, heatmap.shape)
    heat = Image.fromarray(heatmap).resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
    canvas[rows, columns] = _blend(np.ascontiguousarray(canvas[rows, columns]), np.array(heat, np.float32), style)
    return canvas


def _blend(pixels: Bytes, heatmap: Floats, style: FigureStyle) -> Bytes:
    """Blend a heatmap (H,W) onto pixels (H,W,3)."""
    if style.blend == "constant":
        return overlay(pixels[None], heatmap[None], palette(style.colormap), style.opacity).reshape(pixels.shape)
    entries = _entries(heatmap)
    opacity = Image.fromarray(entries).point([round(style.opacity * entry) for entry in range(256)])
    colors = Image.fromarray(heat_colors(heatmap, style.colormap))
    return np.asarray(Image.composite(colors, Image.fromarray(pixels), opacity))


def _entries(heatmap: Floats) -> Bytes:
    """Return the entries of the colour table for a heatmap with values in [0, 1]."""
    entries: Bytes = np.rint(heatmap * np.float32(255)).astype(np.uint8)
    return entries


def _visible_pixels(start: float, scale: float, length: int, limit: int) -> slice:
    """Return, along one axis, the pixels of the whole image whose centres the model saw."""
    first = max(0, math.ceil(start * scale - 0.5))
    last = min(limit, math.ceil((start + length) * scale - 0.5))
    return slice(first, max(last, first + 1))


def _heatmap_box(
    placement: Placement, rows: slice, columns: slice, shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """Return the edges (left, top, right, bottom) of those pixels in the heatmap's coordinates.

    The box is clipped to the heatmap. This cuts at most half a pixel of the whole image at each edge.
    """

    def edges(pixels: slice, start: float, scale: float, length: int) -> tuple[float, float]:
        low, high = (min(max(edge / scale - start, 0.0), float(length)) for edge in (pixels.start, pixels.stop))
        return low, high

    top, bottom = edges(rows, placement.top, placement.scale_y, shape[0])
    left, right = edges(columns, placement.left, placement.scale_x, shape[1])
    return left, top, right, bottom
