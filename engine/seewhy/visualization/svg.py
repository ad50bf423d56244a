"""Write a page as SVG: texts as text elements, images as embedded PNG files."""

from __future__ import annotations

import base64
import io
from xml.sax.saxutils import escape, quoteattr

from PIL import Image

from seewhy.visualization import fonts
from seewhy.visualization.page import INK, PAPER, Color, Frame, Page, Picture, Text, resized

_DENSITY = 2  # maximum number of pixels of an embedded image for each unit of the page
_FAMILY = "Helvetica, Arial, sans-serif"


def svg_document(page: Page) -> str:
    """Return a page as the text of an SVG document.

    The document refers to nothing outside. No font is embedded: texts have the width that they have as pixels, whatever
    font the viewer uses. All texts are escaped, so labels cannot add elements or scripts.

    Args:
        page: The page.

    Returns:
        A well-formed XML document.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{page.width}" '
        f'height="{page.height}" viewBox="0 0 {page.width} {page.height}" font-family={quoteattr(_FAMILY)}>',
        f'<rect width="{page.width}" height="{page.height}" fill="#ffffff"/>',
    ]
    for item in page.items:
        if isinstance(item, Text):
            lines += _text(item)
        elif isinstance(item, Picture):
            lines.append(_picture(item))
        else:
            lines += _frame(item)
    return "\n".join([*lines, "</svg>", ""])


def _text(item: Text) -> list[str]:
    if not item.text:
        return []
    anchor = ' text-anchor="end"' if item.align == "right" else ""
    length = fonts.measured(item.text, item.size)
    return [
        f'<text x="{item.x}" y="{item.baseline}" font-size="{item.size}" fill="{_hex(item.color)}"{anchor} '
        f'textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(item.text)}</text>'
    ]


def _picture(item: Picture) -> str:
    file = io.BytesIO()
    height, width = item.pixels.shape[:2]
    stored = resized(item.pixels, min(width, _DENSITY * item.width), min(height, _DENSITY * item.height))
    Image.fromarray(stored).save(file, "PNG")
    data = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    # Older programs read xlink:href only. Pixels of enlarged images stay sharp.
    sharp = ' image-rendering="optimizeSpeed"' if item.width > width else ""
    place = f'x="{item.x}" y="{item.y}" width="{item.width}" height="{item.height}"'
    return f'<image {place}{sharp} preserveAspectRatio="none" xlink:href="{data}"/>'


def _frame(item: Frame) -> list[str]:
    """Return the rectangles of a frame: white outside, dark inside."""
    insets = ((item.line / 2, PAPER), (1.5 * item.line, INK))
    return [
        f'<rect x="{item.x + inset}" y="{item.y + inset}" width="{max(0, item.width - 2 * inset)}" '
        f'height="{max(0, item.height - 2 * inset)}" fill="none" stroke="{_hex(color)}" stroke-width="{item.line}"/>'
        for inset, color in insets
    ]


def _hex(color: Color) -> str:
    return f"#{bytes(color).hex()}"
