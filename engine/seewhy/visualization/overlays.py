"""Pictures of attributions: overlays on the photograph, and signed gradients as RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
from PIL import Image

from seewhy._core import gradient_rgb, overlay, overlay_maps
from seewhy._shared.arrays import Bytes, Floats
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.images.preprocessing import ModelView
from seewhy.images.resizing import Placement
from seewhy.visualization.colormaps import palette

CANVASES = ("model", "original")


def overlays(
    photos: Sequence[ModelView], heatmaps: Floats, colormap: str, alpha: float, canvas: str = "model"
) -> list[Image.Image]:
    """Lay (N,H,W) heatmaps in [0,1] over N photographs: N RGB images.

    Raises:
        ArgumentError: an unknown colour map or canvas, or an alpha outside [0,1].
        ImageError: the original photograph can no longer be read.
    """
    check(colormap, alpha, canvas)
    colours = palette(colormap)
    if canvas == "original":
        pairs = zip(photos, heatmaps, strict=True)
        return [Image.fromarray(_on_original(photo, heat, colours, alpha)) for photo, heat in pairs]
    return [Image.fromarray(picture) for picture in overlay(_views(photos), heatmaps, colours, alpha)]


def map_overlays(
    photos: Sequence[ModelView], maps: Floats, rectified: bool, colormap: str, alpha: float
) -> list[Image.Image]:
    """The same on the model's view, of (N,h,w) maps, in one pass over the photographs.

    Raises:
        ArgumentError: an unknown colour map, or an alpha outside [0,1].
    """
    check(colormap, alpha)
    colours = palette(colormap)
    return [Image.fromarray(p) for p in overlay_maps(_views(photos), maps, colours, alpha, rectified)]


def check(colormap: str, alpha: float, canvas: str = "model") -> None:
    """Raises:
    ArgumentError: an unknown colour map or canvas, or an alpha outside [0,1].
    """
    palette(colormap)
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ArgumentError(f"alpha must be from 0 to 1, not {brief(alpha)}")
    if canvas not in CANVASES:
        raise ArgumentError(f"no canvas {brief(canvas)}; there are {', '.join(CANVASES)}")


def _views(photos: Sequence[ModelView]) -> Bytes:
    return np.stack([rgb(photo.view) for photo in photos])


def gradient_pictures(gradients: Floats) -> list[Image.Image]:
    """(N,C,H,W), C 1 or 3 -> N RGB images: each scaled as a whole, minimum to 0 and maximum to 255.

    Raises:
        ArgumentError: there are neither 1 nor 3 channels.
    """
    channels = gradients.shape[1]
    if channels not in (1, 3):
        raise ArgumentError(f"gradients of {channels} channels cannot be drawn as RGB; use the attributions themselves")
    return [Image.fromarray(picture) for picture in gradient_rgb(gradients)]


def clip_gradients(gradients: Floats, share: float = 0.995) -> Floats:
    """(N,C,H,W) -> the same with each image clipped symmetrically, to where `share` of its |values| lie inside.

    A few extreme values otherwise leave the rest of a small picture plain grey.
    """
    limits = np.quantile(np.abs(gradients).reshape(len(gradients), -1), share, axis=1).astype(np.float32)
    limits = limits.reshape(-1, 1, 1, 1)
    return np.clip(gradients, -limits, limits)


def rgb(view: Bytes) -> Bytes:
    """(H,W,1) or (H,W,3) -> (H,W,3)."""
    return np.ascontiguousarray(np.broadcast_to(view, (*view.shape[:2], 3)))


def _on_original(photo: ModelView, heatmap: Floats, colours: Bytes, alpha: float) -> Bytes:
    """Draw where the model looked, and leave the rest of the photograph as it is."""
    canvas = photo.original()
    rows = _covered(photo.placement.top, photo.placement.scale_y, heatmap.shape[0], canvas.shape[0])
    columns = _covered(photo.placement.left, photo.placement.scale_x, heatmap.shape[1], canvas.shape[1])
    box = _box(photo.placement, rows, columns, heatmap.shape)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    heat = Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR, box)
    part = np.ascontiguousarray(canvas[rows, columns])
    drawn = overlay(part[None], np.array(heat, np.float32)[None], colours, alpha)
    canvas[rows, columns] = drawn[0]
    return canvas


def _covered(start: float, scale: float, length: int, limit: int) -> slice:
    """The photograph's pixels whose centres lie in the part that the model saw, along one axis."""
    first = max(0, math.ceil(start * scale - 0.5))
    last = min(limit, math.ceil((start + length) * scale - 0.5))
    return slice(first, max(last, first + 1))


def _box(
    placement: Placement, rows: slice, columns: slice, shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """Those pixels' edges in the heatmap's coordinates; at most half a pixel of the photograph is cut at the rim."""

    def edges(part: slice, start: float, scale: float, length: int) -> tuple[float, float]:
        low, high = (min(max(edge / scale - start, 0.0), float(length)) for edge in (part.start, part.stop))
        return low, high

    top, bottom = edges(rows, placement.top, placement.scale_y, shape[0])
    left, right = edges(columns, placement.left, placement.scale_x, shape[1])
    return left, top, right, bottom
