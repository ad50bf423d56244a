"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def line(cells: Iterable[object]) -> str:
    """Return one row of a table, with vertical bars in cells escaped."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a table with a header, ending with a newline."""
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"
