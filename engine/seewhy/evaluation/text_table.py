"""Results of an evaluation as text for a terminal: tables, notes, and the recommendation."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy._shared.text import printable, short
from seewhy.evaluation.clear_differences import MetricResult, metric_results, rows
from seewhy.evaluation.wording import by_value, listed
from seewhy.metrics.base import DIRECTIONS

BEST, INCOMPLETE = "*", "†"
"""Marks of the best value, and of a mean over only some of the images."""
_HEADS = {"cost": "cost (ms)"}
_GAP, _INDENT = 2, 2
_LONGEST_TITLE = 28


@dataclass(frozen=True)
class Column:
    """Column of a table: three lines of head, and a cell for each row."""

    group: str
    """Group of the metric."""
    head: str
    """Name of the metric or of a detail."""
    direction: str
    """Direction that is better, in words; empty if there is none."""
    cells: Mapping[str, str]
    """Text by method or reference."""

    @property
    def width(self) -> int:
        """Width in columns of a terminal."""
        return max(map(text_width, (self.group, self.head, self.direction, *self.cells.values())))


def format_results(summary: Mapping[str, Any], width: int = 100) -> str:
    """Return the tables, their notes and the recommendation as text.

    Args:
        summary: The summary; see `summary.py`.
        width: Width of the terminal, in columns.

    Returns:
        The text, with lines of at most `width` columns, but at least one column of numbers in each table.
    """
    found = _wrapped(notes(summary), width)
    recommendation = [*([""] if found else []), "Recommendation", *_wrapped(summary["recommendation"], width, "  - ")]
    return "\n".join([_tables_text(summary, width), *found, *recommendation])


_STOPPED = "The evaluation was stopped before its last image. Run it again to resume."


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the tables must know: marks, missing values, and what was not measured."""
    stopped = [] if summary["complete"] else [_STOPPED]
    noted = [] if summary["note"] is None else [f"{summary['note'][:1].upper()}{summary['note'][1:]}."]
    return [*stopped, *noted, *legend(summary), *_incomplete(summary), *_left_out(summary)]


def format_tables(summary: Mapping[str, Any], width: int = 100) -> str:
    """Return the tables and the meaning of their marks as text; see `format_results`."""
    return "\n".join([_tables_text(summary, width), *_wrapped(legend(summary), width)])


def _tables_text(summary: Mapping[str, Any], width: int) -> str:
    return "\n".join([*_wrapped([counts(summary)], width), *_tables(summary, width), ""])


def counts(summary: Mapping[str, Any]) -> str:
    """Return a sentence about the numbers of images and methods, and the numbers in the tables."""
    images = summary["images"]
    failed = f" ({images['failed']} more failed)" if images["failed"] else ""
    clusters = f" in {_counted(images['clusters'], 'cluster')}" if images["clusters"] != images["measured"] else ""
    methods = _counted(len(rows(summary, references=False)), "method")
    text = f"{_counted(images['measured'], 'image')}{failed}{clusters}, {methods}. Means over the images"
    return f"{text}, ± half the width of the 95 % interval."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _tables(summary: Mapping[str, Any], width: int) -> list[str]:
    """Return the lines of the tables, each with as many metrics as fit."""
    titles = {one["name"]: short(one["title"], _LONGEST_TITLE - 3) for one in summary["methods"]}
    first = max([*map(text_width, titles.values()), 0])
    tables: list[list[Column]] = [[]]
    for block in metric_columns(summary):
        used = _INDENT + first + sum(_GAP + one.width for one in (*tables[-1], *block))
        if tables[-1] and used > width:
            tables.append([])
        tables[-1] += block
    return [line for columns in tables for line in ("", *_lines(summary, titles, columns, first))]


def metric_columns(summary: Mapping[str, Any]) -> list[list[Column]]:
    """Return the columns of each metric, so that the metrics of a group are consecutive."""
    results = metric_results(summary)
    groups = by_value((name, one["group"]) for name, one in summary["definitions"].items())
    return [_columns(summary, results[name]) for names in groups.values() for name in names]


def _lines(summary: Mapping[str, Any], titles: Mapping[str, str], columns: Sequence[Column], first: int) -> list[str]:
    """Return the lines of one table, with the references last."""

    def line(title: str, texts: Iterable[str]) -> str:
        cells = (_padded(text, one.width) for text, one in zip(texts, columns, strict=True))
        return (" " * _INDENT + _padded(title, first) + "".join(" " * _GAP + cell for cell in cells)).rstrip()

    groups = [one.group for one in columns]
    firsts = [group if group not in groups[:i] else "" for i, group in enumerate(groups)]
    head = [firsts, [one.head for one in columns], [one.direction for one in columns]]
    body = []
    for references in (False, True):
        names = [name for name in rows(summary, references) if any(name in one.cells for one in columns)]
        body += [line(titles[name], (one.cells.get(name, "") for one in columns)) for name in names]
    return [*(line("", texts) for texts in head), *body]


def _columns(summary: Mapping[str, Any], result: MetricResult) -> list[Column]:
    """Return the column of a metric, and columns of the details that the summary averages."""
    found, direction = summary["metrics"][result.name], summary["definitions"][result.name]["direction"]
    winner = result.winner(list(rows(summary, references=False)))
    write = _number_format([row["mean"] for row in found.values()], [_half_width(row) for row in found.values()])
    cells = {name: _cell(row, write, name == winner) for name, row in found.items()}
    group = short(result.group[:1].upper() + result.group[1:], _LONGEST_TITLE)
    columns = [Column(group, printable(_HEADS.get(result.name, result.name)), DIRECTIONS.get(direction, ""), cells)]
    for detail in dict.fromkeys(key for row in found.values() for key in row["details"]):
        cells = {name: f"{row['details'][detail]:,.0f}" for name, row in found.items() if detail in row["details"]}
        columns.append(Column(group, printable(detail), "", cells))
    return columns


def _cell(row: Mapping[str, Any], write: str, best: bool) -> str:
    """Return mean, half-width and marks of one metric and method."""
    half, marks = _half_width(row), f"{BEST * best}{INCOMPLETE * (row['unmeasured'] > 0)}"
    mean = "-" if row["mean"] is None else f"{row['mean']:{write}}"
    interval = "" if half is None else f" ± {half:{write}}"
    return f"{mean}{interval} {marks}".rstrip()


def _half_width(row: Mapping[str, Any]) -> float | None:
    return None if row["low"] is None else (row["high"] - row["low"]) / 2


def _number_format(means: Iterable[float | None], half_widths: Iterable[float | None]) -> str:
    """Return a format that shows three digits of the largest mean, and at least one of the largest half-width."""
    largest = max((abs(one) for one in means if one), default=1.0)
    widest = max((one for one in half_widths if one), default=largest)
    if not 1e-3 <= largest < 1e6:
        return ".3g"
    decimals = max(2 - math.floor(math.log10(largest)), -math.floor(math.log10(widest)))
    return f",.{min(max(decimals, 0), 4)}f"


def legend(summary: Mapping[str, Any]) -> list[str]:
    """Explain the marks that the tables use."""
    results, methods = metric_results(summary).values(), list(rows(summary, references=False))
    cells = [row for by_method in summary["metrics"].values() for row in by_method.values()]
    found = []
    if any(one.winner(methods) for one in results):
        test = "paired sign-flip test, Holm's correction"
        found.append(f"{BEST} clearly better than every other method, references not counted ({test})")
    if any(one["unmeasured"] for one in cells):
        found.append(f"{INCOMPLETE} some images have no value")
    if any(one["mean"] is not None and one["low"] is None for one in cells):
        found.append("Intervals need at least two independent images.")
    return found


def _incomplete(summary: Mapping[str, Any]) -> list[str]:
    """Name the values that are missing, with their reasons. Equal reasons of several metrics share a line."""
    titles = {one["name"]: one["title"] for one in summary["methods"]}
    total = summary["images"]["measured"]
    by_metric = by_value(
        (method, (metric, reason, count))
        for metric, by_method in summary["metrics"].items()
        for method, one in by_method.items()
        for reason, count in one["reasons"].items()
    )
    found = by_value((metric, (tuple(names), reason, count)) for (metric, reason, count), names in by_metric.items())
    images = _counted(total, "image")
    return [
        f"No value of {listed(metrics)} for {count:,} of {images} with "
        f"{listed([titles[name] for name in names])}: {reason}"
        for (names, reason, count), metrics in found.items()
    ]


def _left_out(summary: Mapping[str, Any]) -> list[str]:
    """Name what was not measured. Equal reasons of several metrics and methods share a line."""
    titles = {one["name"]: one["title"] for one in summary["methods"]}
    by_method = by_value((one["method"], (one["metric"], one["reason"])) for one in summary["left_out"])
    by_metric = by_value((metric, (reason, tuple(methods))) for (metric, reason), methods in by_method.items())
    found = []
    for (reason, methods), metrics in by_metric.items():
        of = "" if None in methods else f" for {listed([titles.get(one, one) for one in methods])}"
        found.append(f"Not measured: {listed(metrics)}{of}: {reason}")
    return found


def _wrapped(texts: Iterable[str], width: int, start: str = "") -> list[str]:
    """Return texts as lines of at most `width` columns, whose continuations are indented."""
    indent = " " * (len(start) or _INDENT)
    return [
        line
        for text in texts
        for line in textwrap.wrap(
            printable(text), max(width, 40), initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
        )
    ]


def text_width(text: str) -> int:
    """Return the number of columns of a printable text in a terminal."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - text_width(text))
