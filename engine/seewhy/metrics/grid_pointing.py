"""Grid pointing: whether a map finds the image of its class among images of other classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from seewhy._shared.arrays import Bytes, Floats
from seewhy.images.preprocessing import normalise_views
from seewhy.methods.options import Option, Options, choice
from seewhy.metrics.base import HIGHER, EvaluatedMethod, Measured, NotMeasurable, Scope
from seewhy.metrics.evaluated_image import EvaluatedExplanation, EvaluatedImage, positive_part
from seewhy.metrics.metric import Metric, not_for_files

_CELLS = {"2x2": 4, "2x1": 2}


def cells(layout: str, height: int, width: int) -> list[tuple[slice, slice]]:
    """Divide the input of the model into cells.

    Args:
        layout: `2x2`, or `2x1` for two cells along the longer side (side by side if the input is a square).
        height: Height of the input, in pixels.
        width: Width of the input, in pixels.

    Returns:
        Rows and columns of each cell. The first cells are smaller by a pixel if a side is odd.
    """
    rows, columns = _halves(height), _halves(width)
    if layout == "2x1":
        rows, columns = (rows, [slice(0, width)]) if height > width else ([slice(0, height)], columns)
    return [(row, column) for row in rows for column in columns]


def _halves(length: int) -> list[slice]:
    return [slice(0, length // 2), slice(length // 2, length)]


def grid(views: Sequence[Bytes], layout: str) -> Bytes:
    """Put views into the cells of a grid.

    Each view is scaled so that it covers its cell, and the rest is cropped on both sides. It keeps its aspect ratio: in
    a 2x2 grid, it is halved; in a 2x1 grid, it keeps its scale and loses a quarter on two sides.

    Args:
        views: One view for each cell, uint8 of shape (H, W, C).
        layout: As in `cells`.

    Returns:
        The grid, uint8 of shape (H, W, C).
    """
    result = np.empty_like(views[0])
    channels = result.shape[2]
    for view, (rows, columns) in zip(views, cells(layout, *result.shape[:2]), strict=True):
        size = (columns.stop - columns.start, rows.stop - rows.start)
        image = Image.fromarray(view[:, :, 0] if channels == 1 else view)
        fitted = np.asarray(ImageOps.fit(image, size, Image.Resampling.BILINEAR))
        result[rows, columns] = fitted.reshape(size[1], size[0], channels)
    return result


def _grid_pointing(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the share of the map's positive part in the target's cell; chance is 1 / number of cells."""
    image, layout = explanation.image, options["layout"]
    cell = int(image.rng("grid-pointing", layout).integers(_CELLS[layout]))
    found = image.explained(("grid", layout), lambda: _pixels(image, layout, cell))
    positive = positive_part(explanation.maps_of(found)[0])
    inside = positive[cells(layout, *positive.shape)[cell]].sum()
    return Measured(float(inside / positive.sum()), details={"cell": cell})


def _pixels(image: EvaluatedImage, layout: str, cell: int) -> Floats:
    """Return the preprocessed grid with the image in a cell, of shape (1, Cin, H, W)."""
    if image.partners is None:
        raise NotMeasurable("there are no images of other classes")
    views = [view for view, _ in image.partners(_CELLS[layout] - 1)]
    views.insert(cell, image.view)
    return normalise_views(grid(views, layout)[None], image.metadata, 1)


def _unsuitable(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    if scope.metadata.class_count == 1:
        return "the model has a single class"
    if scope.metadata.preprocessing is None:
        return "the model file does not record how pixels are normalised"
    return not_for_files(method, scope, options)


GRID_POINTING = Metric(
    "grid-pointing",
    "Grid pointing",
    "localisation",
    HIGHER,
    _grid_pointing,
    (0, 1),
    "Böhle et al. 2021, Convolutional dynamic alignment networks, section 4 (localisation metric), with a grid of the "
    "model's own input size; chance is 1 / number of cells",
    "one explanation",
    options=(Option("layout", "2x2", choice(_CELLS), "Cells of the grid: 2x2, or 2x1 along the longer side."),),
    uses_partners=True,
    unsuitable=_unsuitable,
)
