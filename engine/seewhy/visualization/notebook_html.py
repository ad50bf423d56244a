"""Figures as HTML for notebooks: small images with their captions as text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image

from seewhy._shared.text import printable
from seewhy.visualization.captions import Caption, enlarged_size
from seewhy.visualization.drawings import Drawing

# Longer side of an image in pixels.
_SIDE = 160


def notebook_html(text: str, figures: Iterable[str], note: str = "") -> str:
    """Return a text with figures below it as HTML.

    Args:
        text: Text of several lines. It is escaped.
        figures: HTML of the figures, from `figure_html`.
        note: Text below the figures, which is escaped; none if it is empty.

    Returns:
        The HTML.
    """
    below = f"<p>{html.escape(note)}</p>" if note else ""
    return (
        f"<div><pre>{html.escape(text)}</pre>"
        f'<div style="display: flex; flex-wrap: wrap; gap: 12px">{"".join(figures)}</div>{below}</div>'
    )


def figure_html(drawing: Drawing, caption: Caption) -> str:
    """Return a small figure as HTML, with its pixels in a data URL.

    Args:
        drawing: The drawing. Large ones are reduced to 160 pixels, and small ones are enlarged by a whole factor.
        caption: The texts.

    Returns:
        The HTML of a `figure` element.
    """
    image = drawing.image
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    width, height = enlarged_size(image.size, _SIDE)
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    lines = (f"{caption.label} ({caption.score})", caption.source, ", ".join(drawing.scale.lines))
    texts = "<br>".join(html.escape(printable(line)) for line in lines)
    return (
        f'<figure style="margin: 0; width: {max(width, _SIDE)}px">'
        f'<img width="{width}" height="{height}" style="image-rendering: pixelated; max-width: none" '
        f'alt="{html.escape(printable(caption.label))}" src="data:image/png;base64,{data}">'
        f'<figcaption style="font-size: smaller">{texts}</figcaption></figure>'
    )
