"""Contact sheets: an image and the figures of several methods, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from seewhy._shared.text import printable

_PAPER, _INK, _GREY = (255, 255, 255), (24, 24, 24), (110, 110, 110)
_SMALLEST, _LARGEST = 224, 512
_MARGIN, _GAP = 20, 12
_HEADING, _NOTE, _CAPTION = 30, 18, 18
_LINE = 1.3
_HEADING_LINES = 2


def contact_sheet(tiles: Sequence[tuple[str, Image.Image]], heading: str, score: str, note: str) -> Image.Image:
    """Draw images in one row, each with a caption, below a heading and a note.

    All images are drawn at the same size: small ones are enlarged to at least 224 pixels on their longer side, large
    ones reduced to at most 512. Characters that do not print are shown as escapes. Text that does not fit is cut and
    ends in an ellipsis.

    Args:
        tiles: Captions and images. The first image determines the size of all.
        heading: Text of the heading.
        score: Text in grey behind the heading.
        note: Text in small grey letters below the heading.

    Returns:
        The contact sheet, an RGB image.
    """
    width, height = _tile_size(tiles[0][1].size)
    inner = len(tiles) * width + (len(tiles) - 1) * _GAP
    fonts = {size: _font(size) for size in (_HEADING, _NOTE, _CAPTION)}
    room = inner - round(fonts[_HEADING].getlength(score)) - _GAP
    lines = _wrap(printable(heading), fonts[_HEADING], room, _HEADING_LINES)

    note_top = _MARGIN + round(len(lines) * _HEADING * _LINE)
    caption_top = note_top + round(_NOTE * _LINE) + _GAP
    tile_top = caption_top + round(_CAPTION * _LINE) + 4
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, tile_top + height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + round(i * _HEADING * _LINE)), line, _INK, fonts[_HEADING])
    last = _MARGIN + round((len(lines) - 1) * _HEADING * _LINE)
    draw.text((_MARGIN + fonts[_HEADING].getlength(lines[-1]) + _GAP, last), score, _GREY, fonts[_HEADING])
    draw.text((_MARGIN, note_top), _shorten(printable(note), fonts[_NOTE], inner), _GREY, fonts[_NOTE])
    for i, (caption, image) in enumerate(tiles):
        left = _MARGIN + i * (width + _GAP)
        draw.text((left, caption_top), _shorten(printable(caption), fonts[_CAPTION], width), _INK, fonts[_CAPTION])
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, tile_top))
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size)


def _tile_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) at which an image of this (width, height) is drawn."""
    longest = max(size)
    scale = math.ceil(_SMALLEST / longest) if longest < _SMALLEST else min(1.0, _LARGEST / longest)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int) -> list[str]:
    """Break text between words into at most `most` lines, and shorten lines that are too long."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width and len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shorten(line, font, width) for line in lines]


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut text to a width in pixels, with an ellipsis at its end."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # find the largest number of characters that fit with the ellipsis
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "...") <= width else (low, middle - 1)
    return text[:low].rstrip() + "..."
