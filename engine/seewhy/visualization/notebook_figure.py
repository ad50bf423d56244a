"""A matplotlib figure that notebooks show, imported only where matplotlib is needed."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that Jupyter shows once if it ends a cell, without pyplot and `%matplotlib`."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()
