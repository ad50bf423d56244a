"""Display of an explanation in notebooks: as HTML, and as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from seewhy._shared.text import first_line
from seewhy.errors import ArgumentError, SeewhyError
from seewhy.visualization import drawing_options as defaults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seewhy.images.preprocessing import ModelView
    from seewhy.visualization.captions import Caption
    from seewhy.visualization.drawings import Drawing
    from seewhy.visualization.figure_style import FigureStyle
    from seewhy.visualization.matplotlib_figures import Cell

_HTML_FIGURES = 5
"""Maximum number of figures that a notebook shows for an explanation."""

_PLOTTED_FIGURES = 30
"""Maximum number of figures in a plot."""


class _Drawable(Protocol):
    """Parts of an explanation that its display uses."""

    @property
    def images(self) -> tuple[ModelView, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> _Drawable: ...

    def targets_of(self, image: int) -> list[int]: ...

    def caption(self, image: int, target: int) -> Caption: ...

    def draw(self, style: FigureStyle) -> Iterator[Drawing]: ...


class ExplanationDisplay:
    """Methods of `Explanation` that show it in notebooks."""

    def _repr_html_(self: _Drawable) -> str:
        """Return the text of `repr` and the first five figures as HTML, for Jupyter."""
        from seewhy.visualization.figure_style import FigureStyle
        from seewhy.visualization.notebook_html import figure_html, notebook_html

        some, total = self[:_HTML_FIGURES], sum(1 for _ in _places(self))
        figures: list[str] = []
        note = f"{_HTML_FIGURES} of {total:,} figures; figures() returns all." if total > _HTML_FIGURES else ""
        try:
            for place, drawing in islice(zip(_places(some), some.draw(FigureStyle()), strict=True), _HTML_FIGURES):
                figures.append(figure_html(drawing, some.caption(*place)))
        except Exception as error:  # noqa: BLE001  a notebook shows the result of a cell, whatever its figures lack
            reason = str(error) if isinstance(error, SeewhyError) else f"{type(error).__name__}: {first_line(error)}"
            note = f"The figures cannot be drawn: {reason}"
        return notebook_html(repr(self), figures, note)

    def plot(
        self: _Drawable,
        colormap: str = defaults.DEFAULT_COLORMAP,
        alpha: float | None = None,
        canvas: str = defaults.DEFAULT_CANVAS,
        blend: str = defaults.DEFAULT_BLEND,
        scale: float | None = None,
        gradients: str = defaults.DEFAULT_GRADIENT_STYLE,
        gradient_scaling: str = defaults.DEFAULT_GRADIENT_SCALING,
    ) -> Figure:
        """Plot the images beside their figures with matplotlib, which the extra `plot` installs.

        Args:
            colormap: As in `figures`.
            alpha: As in `figures`.
            canvas: As in `figures`.
            blend: As in `figures`.
            scale: As in `figures`.
            gradients: As in `figures`.
            gradient_scaling: As in `figures`.

        Returns:
            A matplotlib figure with one row for each image: the image, then a figure for each class. Notebooks show it;
            `savefig` writes it to a file.

        Raises:
            ArgumentError: As `figures`, or if there are more than 30 figures.
            ImageError: As `figures`, or if preprocessed pixels cannot be shown as an image.
            MissingExtraError: If matplotlib is not installed.
        """
        from seewhy.visualization.drawings import draw_input
        from seewhy.visualization.figure_style import FigureStyle
        from seewhy.visualization.matplotlib_figures import Cell, plot_rows

        style = FigureStyle(colormap, alpha, canvas, blend, gradients, gradient_scaling, scale)
        places = list(islice(_places(self), _PLOTTED_FIGURES + 1))
        if len(places) > _PLOTTED_FIGURES:
            raise ArgumentError(
                f"a plot holds at most {_PLOTTED_FIGURES} figures, and there are {sum(1 for _ in _places(self)):,}: "
                f"plot some images, such as explanation[:8].plot(), or explain fewer classes"
            )
        rows: list[list[Cell]] = []
        for (image, target), drawing in zip(places, self.draw(style), strict=True):
            if image == len(rows):
                view = self.images[image]
                rows.append([Cell(Path(view.name).name, draw_input(view, style))])
            caption = self.caption(image, target)
            below = "\n".join((*drawing.scale.lines, drawing.note))
            rows[image].append(Cell(f"{caption.label}\n{caption.score}", drawing, below))
        return plot_rows(rows, self.caption(*places[0]).source)


def _places(explanation: _Drawable) -> Iterator[tuple[int, int]]:
    """Yield the image and the class of each figure, in the order of the figures."""
    return ((image, target) for image in range(len(explanation)) for target in explanation.targets_of(image))
