"""Overlays of heatmaps on images, and figures of signed gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
from PIL import Image

from seewhy._core import gradient_rgb, overlay, overlay_maps
from seewhy._shared.arrays import Bytes, Floats
from seewhy._shared.checks import one_of
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.images.preprocessing import ModelView
from seewhy.images.resizing import Placement
from seewhy.visualization.colormaps import palette
from seewhy.visualization.drawing_options import CANVASES, DEFAULT_CANVAS


def overlays(
    images: Sequence[ModelView], heatmaps: Floats, colormap: str, alpha: float, canvas: str = DEFAULT_CANVAS
) -> list[Image.Image]:
    """Blend heatmaps onto images.

    Args:
        images: The N images.
        heatmaps: Heatmaps, float32 of shape (N, H, W) with values in [0, 1].
        colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
        alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).
        canvas: `model` to draw on the model's view of the image, `original` to draw on the whole image.

    Returns:
        N RGB images.

    Raises:
        ArgumentError: If the colormap or the canvas is unknown, or alpha is outside [0, 1].
        ImageError: If the original image can no longer be read.
    """
    validate_drawing_options(colormap, alpha, canvas)
    colours = palette(colormap)
    if canvas == "original":
        pairs = zip(images, heatmaps, strict=True)
        return [Image.fromarray(_overlay_on_original(image, heat, colours, alpha)) for image, heat in pairs]
    return [Image.fromarray(blended) for blended in overlay(_views(images), heatmaps, colours, alpha)]


def overlays_of_maps(
    images: Sequence[ModelView], maps: Floats, rectified: bool, colormap: str, alpha: float
) -> list[Image.Image]:
    """Upsample and scale CAM maps and blend them onto the model's view of the images, in one pass.

    The result has the same bytes as `overlays` with the heatmaps of the maps.

    Args:
        images: The N images.
        maps: Maps before ReLU and upsampling, float32 of shape (N, h, w).
        rectified: True to apply a ReLU to the maps first.
        colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
        alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).

    Returns:
        N RGB images.

    Raises:
        ArgumentError: If the colormap is unknown, or alpha is outside [0, 1].
    """
    validate_drawing_options(colormap, alpha)
    blended = overlay_maps(_views(images), maps, palette(colormap), alpha, rectified)
    return [Image.fromarray(image) for image in blended]


def validate_drawing_options(colormap: str, alpha: float, canvas: str = DEFAULT_CANVAS) -> None:
    """Validate the options of an overlay.

    Args:
        colormap: Name of a colormap.
        alpha: Opacity of the heatmap.
        canvas: Name of a canvas.

    Raises:
        ArgumentError: If the colormap or the canvas is unknown, or alpha is outside [0, 1].
    """
    palette(colormap)
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ArgumentError(f"alpha must be between 0 and 1, not {brief(alpha)}")
    one_of("canvas", canvas, CANVASES)


def _views(images: Sequence[ModelView]) -> Bytes:
    """Return the model's views of the images as one (N,H,W,3) array."""
    return np.stack([rgb(image.view) for image in images])


def gradient_figures(gradients: Floats) -> list[Image.Image]:
    """Draw signed gradients as RGB images, each scaled as a whole: its minimum to 0, its maximum to 255.

    Args:
        gradients: Gradients, float32 of shape (N, C, H, W), where C is 1 or 3.

    Returns:
        N RGB images.

    Raises:
        ArgumentError: If there are neither 1 nor 3 channels.
    """
    channels = gradients.shape[1]
    if channels not in (1, 3):
        raise ArgumentError(
            f"gradients must have 1 or 3 channels to be drawn as RGB, not {channels}; use the attributions themselves"
        )
    return [Image.fromarray(image) for image in gradient_rgb(gradients)]


def clip_gradients(gradients: Floats, share: float = 0.995) -> Floats:
    """Clip the gradients of each image symmetrically, so that a few extreme values do not decide its scale.

    Without clipping, most of a small figure would be plain grey.

    Args:
        gradients: Gradients, float32 of shape (N, C, H, W).
        share: Share of an image's values that keep their value, from 0 to 1.

    Returns:
        The clipped gradients, float32 of shape (N, C, H, W).
    """
    limits = np.quantile(np.abs(gradients).reshape(len(gradients), -1), share, axis=1).astype(np.float32)
    limits = limits.reshape(-1, 1, 1, 1)
    return np.clip(gradients, -limits, limits)


def rgb(view: Bytes) -> Bytes:
    """Convert a uint8 (H,W,1) or (H,W,3) array to a contiguous (H,W,3) array."""
    return np.ascontiguousarray(np.broadcast_to(view, (*view.shape[:2], 3)))


def _overlay_on_original(image: ModelView, heatmap: Floats, colours: Bytes, alpha: float) -> Bytes:
    """Draw a heatmap on the part of the whole image that the model saw, and leave the rest unchanged."""
    canvas = image.original()
    rows = _visible_pixels(image.placement.top, image.placement.scale_y, heatmap.shape[0], canvas.shape[0])
    columns = _visible_pixels(image.placement.left, image.placement.scale_x, heatmap.shape[1], canvas.shape[1])
    box = _heatmap_box(image.placement, rows, columns, heatmap.shape)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    heat = Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR, box)
    visible = np.ascontiguousarray(canvas[rows, columns])
    blended = overlay(visible[None], np.array(heat, np.float32)[None], colours, alpha)
    canvas[rows, columns] = blended[0]
    return canvas


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
