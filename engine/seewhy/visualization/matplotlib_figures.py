"""Rows of drawings as a matplotlib figure, by the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seewhy._shared.extras import missing_extra
from seewhy._shared.text import printable, short
from seewhy.visualization.captions import add_drawing
from seewhy.visualization.drawings import Drawing
from seewhy.visualization.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width of a drawing, and height of the texts above and below it, in inches.
_WIDTH, _TEXTS = 2.6, 0.75
# An axis of a very long or very flat image still has room for its texts.
_FLATTEST, _TALLEST = 0.25, 4.0


@dataclass(frozen=True)
class Cell:
    """A drawing between two texts."""

    above: str
    """Text above the drawing."""
    drawing: Drawing
    below: str = ""
    """Text below the drawing."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty matplotlib figure, which notebooks show once.

    Args:
        width: Width in inches.
        height: Height in inches.

    Returns:
        The figure. It is not kept by `matplotlib.pyplot`, so nothing needs to close it.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from seewhy.visualization.notebook_figure import NotebookFigure
    except ModuleNotFoundError as error:
        raise missing_extra(f"plots need matplotlib, and {error.name} is not installed", "plot") from error
    return NotebookFigure((width, height), layout="constrained")


def plot_rows(rows: Sequence[Sequence[Cell]], title: str) -> Figure:
    """Plot rows of drawings.

    Args:
        rows: Rows of equally many cells.
        title: Text above all.

    Returns:
        The figure, with one axes for each cell, row by row.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    sizes = [[cell.drawing.size for cell in row] for row in rows]
    heights = [min(_TALLEST, max(_FLATTEST, *(height / width for width, height in row))) * _WIDTH for row in sizes]
    figure = new_figure(_WIDTH * len(rows[0]), sum(heights) + _TEXTS * len(rows) + _TEXTS / 2)
    grid = figure.subplots(
        len(rows), len(rows[0]), squeeze=False, height_ratios=[height + _TEXTS for height in heights]
    )
    for axes, cell in zip(grid.flat, (cell for row in rows for cell in row), strict=True):
        _fill(axes, cell)
    # A label may hold dollars, which would else start a formula.
    figure.suptitle(short(title), fontsize="medium", parse_math=False)
    return figure


def _fill(axes: Axes, cell: Cell) -> None:
    size = cell.drawing.size
    page = Page(*size)
    add_drawing(page, cell.drawing, (0, 0, *size))
    axes.imshow(page.image())
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(_lines(cell.above), fontsize="small", parse_math=False)
    axes.set_xlabel(_lines(cell.below), fontsize="x-small", parse_math=False)


def _lines(text: str) -> str:
    return "\n".join(short(printable(line), 44) for line in text.splitlines())
