"""Results of an evaluation as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from seewhy._shared.text import printable
from seewhy.evaluation.clear_differences import rows
from seewhy.evaluation.text_table import counts, metric_columns, notes


def format_html(summary: Mapping[str, Any]) -> str:
    """Return the table, its notes and the recommendation as HTML.

    Args:
        summary: The summary; see `summary.py`.

    Returns:
        A `div` element, in which all texts are escaped.
    """
    columns = [column for block in metric_columns(summary) for column in block]
    groups = [(group, len(list(each))) for group, each in groupby(one.group for one in columns)]
    spans = "".join(f'<th colspan="{count}" style="text-align: left">{_text(group)}</th>' for group, count in groups)
    head = [
        f"<tr><th></th>{spans}</tr>",
        _row("th", ["", *(one.head for one in columns)]),
        _row("th", ["", *(one.direction for one in columns)]),
    ]
    titles = {**rows(summary, references=False), **rows(summary, references=True)}
    body = [_row("td", [title, *(one.cells.get(name, "") for one in columns)]) for name, title in titles.items()]
    table = f"<table><thead>{''.join(head)}</thead><tbody>{''.join(body)}</tbody></table>" if columns else ""
    return (
        f"<div><p>{_text(counts(summary))}</p>{table}{_list(notes(summary))}<p><b>Recommendation</b></p>"
        f"{_list(summary['recommendation'])}</div>"
    )


def _row(kind: str, texts: Iterable[str]) -> str:
    start = f'<{kind} style="text-align: left">'
    return f"<tr>{''.join(f'{start}{_text(one)}</{kind}>' for one in texts)}</tr>"


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(one)}</li>" for one in texts)
    return f"<ul>{items}</ul>" if items else ""


def _text(text: str) -> str:
    return html.escape(printable(text))
