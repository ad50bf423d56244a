"""The page docs/reference/metrics.md, written from the table of metrics: `python tests/support/metrics_page.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.markdown_tables import line

from seewhy.metrics.built_in import BUILT_IN
from seewhy.metrics.listing import by_group, facts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"


def markdown() -> str:
    """Return the table as a Markdown page."""
    lines = [
        "# Metrics",
        "",
        "All metrics of `seewhy evaluate`, by the question that they answer.",
        "[Evaluate methods](../how-to/evaluate-methods.md) shows how to use them.",
    ]
    for group, metrics in by_group(BUILT_IN).items():
        lines += ["", f"## {group[0].upper()}{group[1:]}", "", "| metric | direction | values | passes | source |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for metric in metrics:
            direction, values, cost, default = facts(metric)
            lines.append(line([f"`{metric.name}`, {default}", direction, values, cost, metric.reference]))
        options = [(metric, option) for metric in metrics for option in metric.options]
        if options:
            lines += ["", "| option | default | meaning |", "| --- | --- | --- |"]
            lines += [line([f"`{one.name}.{o.name}`", o.default, o.meaning]) for one, o in options]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
