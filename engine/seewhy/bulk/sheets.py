"""Contact sheet of one image: its explanations by all methods and for all classes of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seewhy.explainer.explanation import Explanation
from seewhy.visualization.contact_sheet import Section, Tile, contact_sheet
from seewhy.visualization.drawings import Drawing, draw_input, on_canvas
from seewhy.visualization.figure_style import FigureStyle
from seewhy.visualization.page import Page

_FRAME_NOTE = "The frame shows the part that the model saw."


def has_sheet(sheet: str, methods: int, classes: int) -> bool:
    """Return whether an image gets a sheet, for a setting and the numbers of methods and of classes."""
    return sheet in ("always", "side-by-side") or (sheet == "auto" and methods * classes > 1)


def sheet_of(
    results: Mapping[str, Explanation],
    drawn: Mapping[str, Sequence[Drawing]],
    style: FigureStyle,
    file_name: str,
    *,
    one_row: bool,
) -> Page:
    """Return the contact sheet of one image.

    With one class, the tiles are the input and the methods, in the order in which they were given. With one method and
    several classes, they are the input and the classes. Several methods and classes give a section for each class.

    Args:
        results: Explanations of the image by method, each with N = 1.
        drawn: Drawings by method, one for each class.
        style: The style of the drawings.
        file_name: Name of the image.
        one_row: Whether the tiles of a section are in one row.

    Returns:
        The sheet.
    """
    first = next(iter(results.values()))
    view, source = first.images[0], " · ".join(part for part in (first.model_name, file_name) if part)
    input_tile = Tile("Input", draw_input(view, style), has_scale=False)
    size = input_tile.drawing.size
    placed = {
        method: [on_canvas(one, view, size) if style.canvas == "original" else one for one in drawings]
        for method, drawings in drawn.items()
    }
    captions = [first.caption(0, target) for target in first.targets_of(0)]
    titles = {method: result.request.method.title for method, result in results.items()}
    heading, score = captions[0].label, captions[0].score
    if len(captions) == 1:
        sections = [Section([input_tile, *(Tile(titles[method], ones[0]) for method, ones in placed.items())])]
    elif len(results) == 1:
        heading, score = titles[first.method], ""
        tiles = (
            Tile(f"{rank}. {caption.label}", one, caption.score)
            for rank, (caption, one) in enumerate(zip(captions, placed[first.method], strict=True), 1)
        )
        sections = [Section([input_tile, *tiles])]
    else:
        heading, score = f"{len(captions)} classes", ""
        sections = [
            Section(
                [input_tile, *(Tile(titles[method], ones[k]) for method, ones in placed.items())],
                f"{k + 1}. {caption.label}",
                caption.score,
            )
            for k, caption in enumerate(captions)
        ]
    notes = _notes(results, placed)
    if input_tile.drawing.view is not None:
        notes.append(_FRAME_NOTE)
    return contact_sheet(sections, heading, score, source, one_row=one_row, notes=" ".join(notes))


def _notes(results: Mapping[str, Explanation], drawn: Mapping[str, Iterable[Drawing]]) -> list[str]:
    """Return sentences that say how the values of the scales were chosen."""
    kinds = {name: "map" if result.request.method.is_map else "gradient" for name, result in results.items()}
    notes = (f"Each {kinds[name]} is {one.scale.rule}." for name, drawings in drawn.items() for one in drawings)
    return list(dict.fromkeys(notes))
