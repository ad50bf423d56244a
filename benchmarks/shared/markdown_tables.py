"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def line(cells: Iterable[object]) -> str:
    """Return one row of a table; bars inside cells are escaped."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a table that ends with a newline."""
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"
