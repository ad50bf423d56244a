"""A page: images, texts and frames at their places, which is rendered as pixels or as SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from PIL import Image, ImageDraw

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
    """An image that is resized to a width and height."""

    x: int
    y: int
    width: int
    height: int
    image: Image.Image


@dataclass(frozen=True)
class Frame:
    """A thin rectangle, dark and white, so that it is visible on any image."""

    x: int
    y: int
    width: int
    height: int


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
        image = Image.new("RGB", (self.width, self.height), PAPER)
        for item in self.items:
            if isinstance(item, Text):
                x = item.x if item.align == "left" else item.x - fonts.width(item.text, item.size)
                fonts.draw(image, x, item.baseline, item.text, item.size, item.color)
            elif isinstance(item, Picture):
                image.paste(resized(item.image, item.width, item.height), (item.x, item.y))
            else:
                draw = ImageDraw.Draw(image)
                right, bottom = item.x + item.width - 1, item.y + item.height - 1
                draw.rectangle((item.x, item.y, right, bottom), outline=PAPER)
                if min(item.width, item.height) > 4:
                    draw.rectangle((item.x + 1, item.y + 1, right - 1, bottom - 1), outline=INK)
        return image


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image: pixels stay visible if it becomes larger, and are averaged if it becomes smaller."""
    if image.size == (width, height):
        return image
    larger = width >= image.width and height >= image.height
    return image.resize((width, height), Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)
