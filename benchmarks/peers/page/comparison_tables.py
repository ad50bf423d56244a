"""The tables of docs/performance/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.benchmark_questions import COLD, FLOOR, OURS, QUESTIONS
from benchmarks.peers.cold_start import MODELS as COLD_MODELS
from benchmarks.peers.cold_start import TOOLS as COLD_TOOLS
from benchmarks.peers.page.performance_aims import Records, bars, quickest
from benchmarks.peers.results_file import key
from benchmarks.shared.markdown_tables import table


def bar_table(records: Records) -> str:
    rows = []
    for bar in bars():
        value, reached = bar.value(records), bar.reached(records)
        sign = "≤" if bar.at_most else "≥"
        verdict = "not measured" if reached is None else "reached" if reached else "**missed**"
        spread = bar.spread(records)
        told = "" if value is None or spread is None else f"{value:.2f} ({spread[0]:.2f}–{spread[1]:.2f})"
        least = bar.least(records)
        if spread is not None and spread[0] <= bar.limit <= spread[1]:
            verdict += ", within the spread"
        rows.append([bar.measure, f"{sign} {bar.limit:g}", told, "" if least is None else f"{least:.2f}", verdict])
    return table(["measure", "bar", "median of the rounds (p10–p90)", "least ÷ least", ""], rows)


def question_table(name: str, records: Records, batch: int) -> str:
    """A row a rival, a column a model: milliseconds with spread, and the ratio to the floor or to SeeWhy."""
    question = QUESTIONS[name]
    found = {model: records.get(key(name, model, batch)) for model in question.models}
    models = [model for model, record in found.items() if record is not None]
    if not models:
        return "Not measured.\n"
    rows = [
        [
            rival.name,
            *(
                _cell(rival.name, found[model]["rivals"], question.floor or question.ours)
                if rival.tries(model, batch)
                else "–"
                for model in models
            ),
        ]
        for rival in question.rivals
        if any(rival.tries(model, batch) for model in models)
    ]
    ours = FLOOR if question.ours == FLOOR else OURS
    best = [f"*best rival ÷ {ours}*", *(_best(found[model]["rivals"]) for model in models)]
    return table(["ms", *(models if models != ["any"] else ["224×224"])], [*rows, best] if any(best[1:]) else rows)


def _cell(name: str, rivals: Mapping[str, Any], base: str) -> str:
    record = rivals.get(name)
    if record is None:
        return "not measured"
    if "failed" in record:
        return "failed"
    told = "to_floor" if base == FLOOR else "to_ours"
    ratio = f"; {record[told]:.2f}×" if told in record else ""
    differs = " ≠" if record.get("agreement", {}).get("same") is False else ""
    median, low, high = (number(record["ms"][key]) for key in ("median", "p10", "p90"))
    return f"{median} ({low}–{high}{ratio}){differs}{' †' if record.get('apart') else ''}"


def _best(rivals: Mapping[str, Any]) -> str:
    name = quickest(rivals, [name for name in rivals if name != FLOOR and not name.startswith(OURS)])
    return "" if name is None or "to_ours" not in rivals[name] else f"{rivals[name]['to_ours']:.2f} ({name})"


def number(value: float) -> str:
    """Three figures that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cold_table(records: Records) -> str:
    rows = []
    for model in COLD_MODELS:
        rivals = records.get(key(COLD, model, 1), {}).get("rivals", {})
        for name in COLD_TOOLS:
            record = rivals.get(name)
            if record is None:
                continue
            if "failed" in record:
                rows.append([model, name, "failed", "", "", ""])
                continue
            spread = record["ms"]
            rows.append(
                [
                    model,
                    name,
                    f"{spread['median'] / 1e3:.2f} ({spread['p10'] / 1e3:.2f}–{spread['p90'] / 1e3:.2f})",
                    f"{record['to_ours']:.1f}×" if "to_ours" in record else "",
                    f"{record['peak_bytes'] / 2**20:.0f}",
                    f"{record['installed_bytes'] / 2**20:.0f}",
                ]
            )
    head = ["model", "tool", "seconds", "÷ SeeWhy", "peak memory, MiB", "installed, MiB"]
    return table(head, rows) if rows else "Not measured.\n"


def differences(records: Records) -> str:
    """Whose answer was not SeeWhy's, what failed, and what was chosen for whom."""
    lines = []
    chosen: dict[tuple[str, str], list[str]] = {}
    for where, record in sorted(records.items()):
        for name, rival in record["rivals"].items():
            agreement = rival.get("agreement", {})
            if "note" in rival:
                chosen.setdefault((name, rival["note"]), []).append(where)
            if rival.get("apart"):
                lines.append(f"- {where}: {name} † was measured apart, beside {FLOOR} and {OURS} alone")
            if "failed" in rival:
                lines.append(f"- {where}: {name} failed: {_plain(rival['failed'])}")
            elif agreement.get("same") is False:
                error = "" if agreement["error"] is None else f" {agreement['error']:.2g}"
                lines.append(
                    f"- {where}: {name} ≠: {agreement['measure']}{error}, tolerance {agreement['tolerance']:.2g}"
                )
            elif agreement and agreement["same"] is None:
                lines.append(f"- {where}: {name}: nothing to compare, all of it is zero")
    if not lines:
        lines.append("Every answer that could be compared was the same.")
    lines += ["", "How each tool was run, where there was a choice:", ""]
    lines += [f"- {name}: {note} ({', '.join(places)})" for (name, note), places in sorted(chosen.items())]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
