"""A page: images, texts and frames at their places, which is rendered as pixels or as SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from seewhy._shared.arrays import Bytes
from seewhy.visualization import fonts

Color: TypeAlias = tuple[int, int, int]
PAPER: Color = (255, 255, 255)
INK: Color = (24, 24, 24)
GREY: Color = (92, 92, 92)


@dataclass(frozen=True)
class Text:
    """One line of text."""

    x: int
    """Left or right end, depending on `align`, in pixels."""
    baseline: int
    """Distance of the baseline from the top, in pixels."""
    text: str
    """Text that prints, in characters that a font covers."""
    size: int
    """Size of the font in pixels."""
    color: Color = INK
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Picture:
    """Pixels that are shown at a width and height."""

    x: int
    y: int
    width: int
    height: int
    pixels: Bytes
    """uint8 of shape (H, W, 3)."""


@dataclass(frozen=True)
class Frame:
    """A rectangle of two lines, white outside and dark inside, so that it is visible on any image."""

    x: int
    y: int
    width: int
    height: int
    line: int = 1
    """Width of each line in pixels."""


@dataclass
class Page:
    """A white page."""

    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    items: list[Text | Picture | Frame] = field(default_factory=list)
    """Elements, the lowest first."""

    def image(self) -> Image.Image:
        """Return the page as an RGB image."""
        canvas = np.full((self.height, self.width, 3), 255, np.uint8)
        for item in self.items:
            if isinstance(item, Text):
                x = item.x if item.align == "left" else item.x - fonts.width(item.text, item.size)
                fonts.draw(canvas, x, item.baseline, item.text, item.size, item.color)
                continue
            place = canvas[item.y : item.y + item.height, item.x : item.x + item.width]
            if isinstance(item, Picture):
                place[...] = resized(item.pixels, item.width, item.height)
            else:
                _outline(place, PAPER, item.line)
                _outline(place[item.line : -item.line, item.line : -item.line], INK, item.line)
        return Image.fromarray(canvas)


def _outline(place: Bytes, color: Color, line: int) -> None:
    """Draw the outermost pixels of a place in a colour."""
    for edge in (place[:line], place[-line:], place[:, :line], place[:, -line:]):
        edge[...] = color


def resized(pixels: Bytes, width: int, height: int) -> Bytes:
    """Resize pixels (H, W, 3): repeat them to enlarge an image, average them to reduce it."""
    size = pixels.shape[1], pixels.shape[0]
    if size == (width, height):
        return pixels
    larger = width >= size[0] and height >= size[1]
    resampling = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((width, height), resampling))
