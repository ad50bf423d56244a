"""Figures with a caption: class, probability, method and model, and a scale of the colours."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.visualization import fonts
from seewhy.visualization.color_scale import ColorScale, color_bar
from seewhy.visualization.drawings import Drawing
from seewhy.visualization.overlays import Box
from seewhy.visualization.page import GREY, INK, Frame, Page, Picture, Text

# A page is at least this wide, so that the texts have room.
_NARROWEST = 224
# Size of the largest text: 12 pixels, or 3 % of the width on wide images: 2.4 mm in a column of 8 cm.
_SIZE, _SHARE = 12, 0.03
# The texts of an image that is wider than this many heights have the size of a narrower image's.
_LONGEST = 4
# Sizes in units of the largest text.
_SMALL, _BAR, _GAP = 0.9, 0.55, 0.6
_FRAME_SHARE = 500  # longer side of an image for each pixel of the frame's lines


@dataclass(frozen=True)
class Caption:
    """Texts of a caption."""

    label: str
    """Label of the class."""
    score: str
    """Probability or logit as text."""
    source: str
    """Method and model."""


def captioned(drawing: Drawing, caption: Caption) -> Page:
    """Return a page with a drawing and its caption below it.

    Small drawings are enlarged by a whole factor. Texts that are too long are cut. On the whole image, a frame shows
    the part that the model saw.

    Args:
        drawing: The drawing.
        caption: The texts.

    Returns:
        The page.
    """
    width, height = enlarged_size(drawing.size, _NARROWEST)
    page_width = max(width, _NARROWEST)
    size = max(_SIZE, round(_SHARE * min(page_width, _LONGEST * height)))
    small, gap = round(_SMALL * size), round(_GAP * size)
    page = Page(page_width, 0)
    left, room = gap, page_width - 2 * gap
    add_drawing(page, drawing, ((page_width - width) // 2, 0, width, height))

    baseline = height + round(1.45 * size)
    score_room = round(fonts.measured(caption.score, size)) + gap
    page.items += [
        Text(left, baseline, fonts.shorten(caption.label, size, room - score_room), size, INK),
        Text(left + room, baseline, caption.score, size, GREY, "right"),
    ]
    baseline += round(1.35 * size)
    page.items.append(Text(left, baseline, fonts.shorten(fonts.readable(caption.source), small, room), small, GREY))
    baseline += round(1.4 * size)
    add_scale(page, drawing.scale, (left, baseline, room), small)
    note = f"{drawing.scale.note}; {drawing.note}" if drawing.note else drawing.scale.note
    for line in fonts.wrap(note, small, room, 2):
        baseline += round(1.25 * size)
        page.items.append(Text(left, baseline, line, small, GREY))
    page.height = baseline + gap
    return page


def bare(drawing: Drawing) -> Page:
    """Return a page that holds a drawing alone."""
    return Page(*drawing.size, [Picture(0, 0, *drawing.size, drawing.pixels)])


def enlarged_size(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Return the (width, height) at which an image is shown: its own, or a multiple if its longer side is small."""
    factor = -(-smallest // max(size)) if max(size) < smallest else 1
    return size[0] * factor, size[1] * factor


def add_drawing(page: Page, drawing: Drawing, place: tuple[int, int, int, int]) -> None:
    """Add a drawing to a page, with a frame around the part that the model saw.

    Args:
        page: The page.
        drawing: The drawing.
        place: (x, y, width, height) in pixels.
    """
    x, y, width, height = place
    page.items.append(Picture(x, y, width, height, drawing.pixels))
    if drawing.view is not None:
        page.items.append(_frame_of(drawing.view, drawing.size, place))


def _frame_of(view: Box, size: tuple[int, int], place: tuple[int, int, int, int]) -> Frame:
    """Return the frame around a part of an image that is shown at a place (x, y, width, height)."""
    x, y, width, height = place
    (left, right), (top, bottom) = (
        (round(view[axis] * length / size[axis]), round(view[axis + 2] * length / size[axis]))
        for axis, length in enumerate((width, height))
    )
    line = max(1, max(width, height) // _FRAME_SHARE)
    return Frame(x + left, y + top, max(1, right - left), max(1, bottom - top), line)


def add_scale(page: Page, scale: ColorScale, place: tuple[int, int, int], size: int) -> None:
    """Add a scale of colours in one line: the bar between the values at its ends, or that the map is constant.

    Args:
        page: The page.
        scale: The scale.
        place: x, baseline and width in pixels.
        size: Size of the texts in pixels.
    """
    x, baseline, width = place
    if scale.remark:
        page.items.append(Text(x, baseline, scale.remark, size, INK))
        return
    low, high = scale.ends
    gap, bar_height = size // 2, max(3, round(_BAR * size))
    start = x + fonts.width(low, size) + gap
    end = x + width - fonts.width(high, size) - gap
    page.items += [Text(x, baseline, low, size, GREY), Text(x + width, baseline, high, size, GREY, "right")]
    if end > start:
        bar = color_bar(scale.colormap, end - start, bar_height)
        # Digits are about 0.7 of the font's size high, and the bar is centred on them.
        page.items.append(Picture(start, baseline - round(0.35 * size + bar_height / 2), end - start, bar_height, bar))
