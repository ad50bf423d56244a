"""Plots of an evaluation, with matplotlib (the extra `plot`).

Figures are made without pyplot, which would keep them in memory and needs a backend for windows.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from seewhy._shared.extras import missing_extra
from seewhy._shared.text import printable, short
from seewhy.evaluation.clear_differences import metric_results, rows
from seewhy.metrics.base import DIRECTIONS
from seewhy.visualization.system_fonts import candidates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("metrics", "curves")
"""Kinds of plots: all metrics as dots with intervals, and curves of the metrics that have them."""
FORMATS = ("png", "svg")
"""Formats in which the plots of an evaluation are written."""

# Okabe and Ito 2008, Color universal design: colours that remain distinct without red-green vision. Grey is kept for
# the references, and yellow is too light for lines.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")
_GREY = "#8C8C8C"
_REFERENCE_DASHES = ("--", ":")
_FONT = "DejaVu Sans"  # comes with matplotlib
_SIZE = 8
_WIDTH = 7.2  # inches: the text width of a page with two columns
_COLUMNS = 3
_TITLE_WIDTH = 26  # characters
_DPI = 200
_SHARES = ("deletion", "insertion")  # metrics whose steps are shares of the pixels, from none to all
_STEPS = {
    "deletion": "Pixels removed (%)",
    "insertion": "Pixels put back (%)",
    "randomization": "Stage of randomization",
}
_VALUES = {"deletion": "Score", "insertion": "Score", "randomization": "Similarity"}
_STYLE: Any = {
    "axes.edgecolor": "#000000",
    "axes.facecolor": "#FFFFFF",
    "axes.grid": False,
    "axes.labelcolor": "#000000",
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": "#000000",
    "axes.titlesize": _SIZE,
    "figure.facecolor": "#FFFFFF",
    "font.size": _SIZE,
    "text.color": "#000000",
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
    "text.usetex": False,
    "xtick.color": "#000000",
    "xtick.major.width": 0.6,
    "ytick.color": "#000000",
    "ytick.major.width": 0.6,
}


def plot_files(summary: Mapping[str, Any]) -> dict[str, Callable[[IO[bytes]], object]]:
    """Return the plots of an evaluation as files.

    Args:
        summary: The summary; see `summary.py`.

    Returns:
        Function that writes each file, by name, such as `metrics.png`. There are no curves if no metric has one.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    found: dict[str, Callable[[IO[bytes]], object]] = {}
    for kind in KINDS:
        if kind == "metrics" or summary["curves"]:
            figure = plot(summary, kind)
            # A fixed salt and no date: equal results give equal bytes.
            found |= {f"{kind}.{form}": partial(_save, figure, form) for form in FORMATS}
    return found


def _save(figure: Figure, form: str, file: IO[bytes]) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "seewhy", "svg.fonttype": "path"}):
        metadata: dict[str, Any] = {"Date": None} if form == "svg" else {}
        figure.savefig(file, format=form, dpi=_DPI, metadata=metadata)


def plot(summary: Mapping[str, Any], kind: str) -> Figure:
    """Draw a plot.

    Args:
        summary: The summary; see `summary.py`.
        kind: One of KINDS. `curves` needs at least one metric with curves.

    Returns:
        The matplotlib figure.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        from seewhy.visualization.notebook_figure import NotebookFigure
    except ImportError as error:
        raise missing_extra(f"{error.name} is not installed", "plot") from error

    texts = [one["title"] for one in (*summary["methods"], *summary["definitions"].values())]
    fonts = Fonts("".join(texts))
    with matplotlib.rc_context({**_STYLE, "font.family": fonts.families}):
        figure = NotebookFigure(dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        FigureCanvasAgg(figure)
        (_draw_metrics if kind == "metrics" else _draw_curves)(figure, summary, fonts)
    return figure


def _draw_metrics(figure: Figure, summary: Mapping[str, Any], fonts: Fonts) -> None:
    """Draw one panel for each metric, with a row for each method and reference."""
    styles, names = _styles(summary), list(summary["definitions"])
    columns = min(_COLUMNS, len(names)) or 1
    lines = math.ceil(len(names) / columns)
    figure.set_size_inches(_WIDTH, lines * (0.85 + 0.17 * len(styles)) + 0.3)
    if not names:
        return
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    winners = {name: one.winner(list(rows(summary, references=False))) for name, one in metric_results(summary).items()}
    for panel, name in zip(panels, names, strict=False):
        for y, (method, style) in enumerate(styles.items()):
            found = summary["metrics"][name].get(method)
            if found is None or found["mean"] is None:
                continue
            if found["low"] is not None:
                panel.hlines(y, found["low"], found["high"], color=style.color, linewidth=1.3)
            panel.plot(found["mean"], y, style.marker, color=style.color, markersize=4)
            if winners[name] == method:
                panel.plot(found["mean"], y, "o", markersize=9, markerfacecolor="none", color="#000000", mew=0.8)
        _title(panel, summary, name, fonts)
        panel.set_yticks(range(len(styles)), [fonts.readable(short(style.title, 30)) for style in styles.values()])
        panel.set_ylim(len(styles) - 0.4, -0.6)
        panel.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.locator_params(axis="x", nbins=4)
        panel.margins(x=0.1)
    for panel in panels[len(names) :]:
        panel.remove()
    ring = "  A ring marks a method that is clearly better than every other method." if any(winners.values()) else ""
    figure.supxlabel(f"Mean and 95 % interval.{ring}", fontsize=_SIZE - 1, x=0.01, ha="left")


def _title(panel: Axes, summary: Mapping[str, Any], name: str, fonts: Fonts) -> None:
    """Write the title of a metric above a panel, and below it which direction is better."""
    definition = summary["definitions"][name]
    lines = textwrap.wrap(fonts.readable(short(definition["title"], 60)), _TITLE_WIDTH)
    panel.set_title("\n".join(lines), loc="left", pad=13, fontweight=fonts.title_weight)
    words = DIRECTIONS.get(definition["direction"], "no direction is better")
    panel.annotate(
        words, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=_SIZE - 1, color="#555555"
    )


def _draw_curves(figure: Figure, summary: Mapping[str, Any], fonts: Fonts) -> None:
    """Draw one panel for each metric that has curves, with a line and a band for each method and reference."""
    styles, names = _styles(summary), list(summary["curves"])
    columns = min(_COLUMNS, len(names))
    lines, legend_lines = math.ceil(len(names) / columns), math.ceil(len(styles) / 4)
    figure.set_size_inches(_WIDTH if columns > 1 else _WIDTH / 2, lines * 2.5 + 0.2 * legend_lines + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    handles = {}
    for panel, name in zip(panels, names, strict=False):
        for method, style in styles.items():
            found = summary["curves"][name].get(method)
            if found is None:
                continue
            count = len(found["mean"])
            x = np.linspace(0, 100, count) if name in _SHARES else np.arange(1, count + 1)
            low, high = (np.array(found[end], np.float64) for end in ("low", "high"))
            panel.fill_between(x, low, high, color=style.color, alpha=0.1, linewidth=0)
            marker = style.marker if name not in _SHARES else ""
            (handles[method],) = panel.plot(
                x, found["mean"], style.dashes, color=style.color, linewidth=1.2, marker=marker, markersize=3
            )
        _title(panel, summary, name, fonts)
        panel.set_xlabel(_STEPS.get(name, "Step"))
        panel.set_ylabel(_VALUES.get(name, "Value"))
        if name not in _SHARES:
            panel.locator_params(axis="x", integer=True)
    for panel in panels[len(names) :]:
        panel.remove()
    # A label that begins with an underscore would be left out of the legend, so each begins with a space.
    labels = [f" {fonts.readable(short(styles[method].title, 30))}" for method in handles]
    figure.legend(
        list(handles.values()),
        labels,
        loc="outside lower left",
        ncols=4 if columns > 1 else 2,
        frameon=False,
        title="Mean and 95 % interval",
        title_fontsize=_SIZE - 1,
        alignment="left",
    )


@dataclass(frozen=True)
class _Style:
    """Title and look of a method or reference in all plots."""

    title: str
    color: str
    dashes: str
    marker: str


def _styles(summary: Mapping[str, Any]) -> dict[str, _Style]:
    """Return a style for each method and then each reference. Only references are grey."""
    styles = {}
    for i, (name, title) in enumerate(rows(summary, references=False).items()):
        turn, color = divmod(i, len(_COLORS))
        styles[name] = _Style(title, _COLORS[color], _DASHES[turn % len(_DASHES)], _MARKERS[turn % len(_MARKERS)])
    for i, (name, title) in enumerate(rows(summary, references=True).items()):
        styles[name] = _Style(title, _GREY, _REFERENCE_DASHES[i % len(_REFERENCE_DASHES)], "os"[i % 2])
    return styles


class Fonts:
    """matplotlib's own font, and fonts of the system for characters that it lacks.

    Attributes:
        families: Names of the fonts, in the order in which matplotlib tries them.
        title_weight: Weight of titles. Fonts of the system are found in their plain form only.
    """

    def __init__(self, text: str) -> None:
        """Find fonts for the characters of a text.

        Args:
            text: The text.
        """
        from matplotlib import font_manager
        from matplotlib.ft2font import FT2Font

        self.families = [_FONT]
        self._covered = set(FT2Font(font_manager.findfont(_FONT)).get_charmap())
        for path, _ in candidates("".join(sorted(self._missing(text)))) if self._missing(text) else ():
            with suppress(OSError, RuntimeError):
                found = set(FT2Font(path).get_charmap())
                if found & set(map(ord, self._missing(text))):
                    font_manager.fontManager.addfont(path)
                    self.families.append(font_manager.FontProperties(fname=path).get_name())
                    self._covered |= found
            if not self._missing(text):
                break
        self.title_weight = "bold" if self.families == [_FONT] else "normal"

    def _missing(self, text: str) -> set[str]:
        return {one for one in printable(text) if ord(one) not in self._covered}

    def readable(self, text: str) -> str:
        """Return a text with escapes in place of characters that no font has or that do not print."""
        text, missing = printable(text), self._missing(text)
        return "".join(one.encode("unicode_escape").decode("ascii") if one in missing else one for one in text)
