"""Contact sheets: an image and its explanations by several methods or for several classes, in a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seewhy.visualization import fonts
from seewhy.visualization.captions import add_drawing, add_scale, enlarged_size
from seewhy.visualization.drawings import Drawing
from seewhy.visualization.page import GREY, INK, Page, Text

_SMALLEST, _LARGEST = 224, 512
_MARGIN, _GAP = 20, 12
_HEADING, _NOTE, _CAPTION, _SCALE = 30, 18, 18, 14
_SECTION = 24
_LINE = 1.3
_HEADING_LINES = 2
# Columns of grids with more tiles than fit into one row.
_FEWEST, _MOST = 4, 6


@dataclass(frozen=True)
class Tile:
    """One image of a sheet, with its caption."""

    caption: str
    """Text above the image."""
    drawing: Drawing
    """The image."""
    detail: str = ""
    """Text in grey at the right end of the caption."""
    has_scale: bool = True
    """True to show the scale of the colours below the image."""


@dataclass(frozen=True)
class Section:
    """Tiles below a common heading."""

    tiles: Sequence[Tile]
    heading: str = ""
    """Text of the heading; empty for none."""
    score: str = ""
    """Text in grey behind the heading."""


def contact_sheet(
    sections: Sequence[Section], heading: str, score: str, note: str, *, one_row: bool = False, notes: str = ""
) -> Page:
    """Arrange images in a grid, each with a caption, below a heading and a note.

    All images are shown at the size of the first one. Small ones are enlarged to at least 224 pixels on their longer
    side, large ones reduced to at most 512. More than six tiles are wrapped into rows. Characters that do not print, or
    that no font has, are shown as escapes. Text that does not fit is cut and ends in an ellipsis.

    Args:
        sections: The tiles.
        heading: Text of the heading.
        score: Text in grey behind the heading.
        note: Text in small grey letters below the heading.
        one_row: Whether to put all tiles of a section into one row.
        notes: Text in small grey letters at the bottom.

    Returns:
        The page.
    """
    size = _tile_size(sections[0].tiles[0].drawing.size)
    most = max(len(section.tiles) for section in sections)
    count = most if one_row else columns(most)
    inner = count * size[0] + (count - 1) * _GAP
    page = Page(inner + 2 * _MARGIN, 0)
    y = _add_heading(page, _MARGIN, fonts.readable(heading), score, _HEADING, inner)
    for line in fonts.wrap(fonts.readable(note), _NOTE, inner, _HEADING_LINES) if note else []:
        y += round(_NOTE * _LINE)
        page.items.append(Text(_MARGIN, y - 5, line, _NOTE, GREY))
    for section in sections:
        y += _GAP
        if section.heading:
            y = _add_heading(page, y + _GAP, section.heading, section.score, _SECTION, inner)
        for start in range(0, len(section.tiles), count):
            y = _add_row(page, y, section.tiles[start : start + count], size) + _GAP
        y -= _GAP
    if notes:
        for line in fonts.wrap(fonts.readable(notes), _SCALE, inner, _HEADING_LINES):
            y += round(_SCALE * 1.4)
            page.items.append(Text(_MARGIN, y + _SCALE // 2, line, _SCALE, GREY))
        y += _SCALE // 2
    page.height = y + _MARGIN
    return page


def columns(tiles: int) -> int:
    """Return the number of columns for some tiles: up to five in one row, otherwise with the fewest empty places."""
    if tiles < _MOST:
        return tiles
    return min(range(_FEWEST, _MOST + 1), key=lambda count: (-tiles % count, count))


def _add_heading(page: Page, top: int, heading: str, score: str, size: int, inner: int) -> int:
    """Add a heading with a score behind it, and return the y below it."""
    if not heading and not score:
        return top
    room = inner - math.ceil(fonts.measured(score, size)) - _GAP
    lines = fonts.wrap(heading, size, room, _HEADING_LINES)
    for line in lines:
        top += round(size * _LINE)
        page.items.append(Text(_MARGIN, top - round(0.35 * size), line, size, INK))
    end = _MARGIN + fonts.width(lines[-1], size) + (_GAP if lines[-1] else 0)
    page.items.append(Text(end, top - round(0.35 * size), score, size, GREY))
    return top


def _add_row(page: Page, top: int, tiles: Sequence[Tile], size: tuple[int, int]) -> int:
    """Add a row of tiles, and return the y below it."""
    width, height = size
    image_top = top + round(_CAPTION * _LINE) + 4
    bottom = image_top + height
    scaled = any(tile.has_scale for tile in tiles)
    for tile, left in zip(tiles, _steps(width), strict=False):
        baseline = image_top - 7
        detail = round(fonts.measured(tile.detail, _CAPTION)) + _GAP if tile.detail else 0
        caption = fonts.shorten(tile.caption, _CAPTION, width - detail)
        page.items.append(Text(left, baseline, caption, _CAPTION, INK))
        if tile.detail:
            page.items.append(Text(left + width, baseline, tile.detail, _CAPTION, GREY, "right"))
        add_drawing(page, tile.drawing, (left, image_top, width, height))
        if tile.has_scale:
            add_scale(page, tile.drawing.scale, (left, bottom + round(_SCALE * _LINE), width), _SCALE)
    return bottom + (round(_SCALE * _LINE) + 6 if scaled else 0)


def _steps(width: int) -> Iterator[int]:
    """Yield the left ends of the tiles of a row."""
    left = _MARGIN
    while True:
        yield left
        left += width + _GAP


def _tile_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) at which an image of this (width, height) is shown."""
    width, height = enlarged_size(size, _SMALLEST)
    scale = min(1.0, _LARGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
