"""Write the table of docs/performance/multi-pass.md from benchmarks/results/many_pass.json.

python benchmarks/jobs/many_pass_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS, ROOT
from benchmarks.shared import json_files
from benchmarks.shared.machine_facts import kind_text
from benchmarks.shared.markdown_tables import table

FILE = "many_pass.json"
PAGE = ROOT / "docs/performance/multi-pass.md"
BEGIN, END = "<!-- written by benchmarks/jobs/many_pass.py: begin -->\n", "<!-- end -->\n"
OURS, ALONE = "seewhy", "runs alone"
HEAD = ("network, method", "passes", "ms", "rate", "other tool", "its time ÷ ours", "CPU time ÷ ours", "agreement")


def rate(case: Mapping[str, Any]) -> float | None:
    """Return the time of the runs alone divided by ours, or None for a method that needs no run for each pass."""
    ratio: float = case["rows"][ALONE]["ratio"]
    return ratio if case["passes_run"] >= case["passes"] else None


def text(data: Mapping[str, Any]) -> str:
    """Return the machine, its versions and the table."""
    machine = data["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "torch", "captum", "grad-cam"))
    rows = [row for name, case in data["cases"].items() for row in _rows(name, case)]
    return f"Measured on {kind_text(machine)}\nwith {versions}:\n\n{table(HEAD, rows)}"


def _rows(name: str, case: Mapping[str, Any]) -> Iterator[list[str]]:
    """Return the rows of a case: one for each other tool, or one alone."""
    tools = case["rows"]
    alone = "–" if rate(case) is None else _with_least(tools[ALONE])
    first = [name, f"{case['passes']:,}", f"{tools[OURS]['ms']:.4g}", alone]
    others = [tool for tool in tools if tool not in (OURS, ALONE)]
    if not others:
        yield [*first, "not measured", "", "", ""]
    for tool in others:
        row = tools[tool]
        yield [*first, tool, _with_least(row), f"{row['core_ratio']:.3g}", case["agreement"].get(tool, "")]


def _with_least(row: Mapping[str, Any]) -> str:
    return f"{row['ratio']:.3g} [{row['ratio_of_least']:.3g}]"


def write(results: Path = RESULTS / FILE, page: Path = PAGE) -> None:
    """Replace the part of the page between the two marks."""
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: the marks of the table are missing")
    page.write_text(f"{before}{BEGIN}\n{text(json_files.read(results))}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    write()
