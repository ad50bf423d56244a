"""Test of docs/reference/metrics.md, which is written from the table of metrics."""

from __future__ import annotations

from support.metrics_page import PAGE, markdown


def test_the_page_of_metrics_is_up_to_date() -> None:
    """If this fails: `python tests/support/metrics_page.py` writes the page."""
    assert PAGE.read_text(encoding="utf-8") == markdown()
