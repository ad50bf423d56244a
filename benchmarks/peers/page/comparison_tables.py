"""Tables of docs/performance/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.benchmark_questions import COLD, DRIFT, FLOOR, MULTI_PASS, OURS, QUESTIONS
from benchmarks.peers.cold_start import MODELS as COLD_MODELS
from benchmarks.peers.cold_start import TOOLS as COLD_TOOLS
from benchmarks.peers.input_files import LITE_MODELS
from benchmarks.peers.page.performance_aims import Aim, Records, quickest
from benchmarks.peers.results_file import key
from benchmarks.shared.markdown_tables import table


def aims_table(aims: Sequence[Aim], records: Records) -> str:
    """Return the table of the measured aims: value, spread, and whether the aim is reached."""
    rows = []
    for aim in aims:
        value, reached = aim.value(records), aim.reached(records)
        if reached is None:
            continue
        sign = "≤" if aim.at_most else "≥"
        verdict = "reached" if reached else "**missed**"
        spread = aim.spread(records)
        measured, least = "", aim.least(records)
        if value is not None and spread is not None:
            measured = f"{value:.2f} ({spread[0]:.2f}–{spread[1]:.2f})"
            if aim.rounds(records) == 1:
                measured, least = f"{value:.3f}", None
        if spread is not None and spread[0] <= aim.limit <= spread[1] and spread[0] < spread[1]:
            verdict += ", within the spread"
        rows.append([aim.measure, f"{sign} {aim.limit:g}", measured, "" if least is None else f"{least:.2f}", verdict])
    if not rows:
        return "Not measured.\n"
    missing = len(aims) - len(rows)
    note = f"\nNot measured on this machine: {missing} more aims.\n" if missing else ""
    return table(["measure", "aim", "median of the rounds (p10–p90)", "fastest ÷ fastest", ""], rows) + note


def question_table(name: str, records: Records, batch: int) -> str:
    """Return a table with a row per rival and a column per model, or nothing if no model was measured.

    The cells are milliseconds, spread, and ratio to the baseline.
    """
    question = QUESTIONS[name]
    found = {model: records.get(key(name, model, batch)) for model in question.models}
    models = [model for model, record in found.items() if record is not None]
    if not models:
        return ""
    tried = [rival for rival in question.rivals if any(rival.tries(model, batch) for model in models)]
    measured = [rival for rival in tried if any(rival.name in found[model]["rivals"] for model in models)]
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
        for rival in measured
    ]
    ours = FLOOR if question.ours == FLOOR else OURS
    precision = " in float32" if any(_in_few_bits(rival.name) for rival in question.rivals) else ""
    best = [f"*best rival{precision} ÷ {ours}*", *(_best(found[model]["rivals"]) for model in models)]
    printed = table(["ms", *(models if models != ["any"] else ["224×224"])], [*rows, best] if any(best[1:]) else rows)
    missing = [rival.name for rival in tried if rival not in measured]
    return printed + (f"\nNot measured: {', '.join(missing)}.\n" if missing else "")


def _cell(name: str, rivals: Mapping[str, Any], base: str) -> str:
    record = rivals.get(name)
    if record is None:
        return "not measured"
    if "failed" in record:
        return "failed"
    ratio_key = "to_floor" if base == FLOOR else "to_ours"
    ratio = f"; {record[ratio_key]:.2f}×" if ratio_key in record else ""
    differs = " ≠" if record.get("agreement", {}).get("same") is False else ""
    median, low, high = (number(record["ms"][key]) for key in ("median", "p10", "p90"))
    correlation = f", r {record['correlation']:.3f}" if record.get("correlation") is not None else ""
    return f"{median} ({low}–{high}{ratio}){differs}{' †' if record.get('apart') else ''}{correlation}"


def _best(rivals: Mapping[str, Any]) -> str:
    """Return the quickest other tool in float32, and its time as a multiple of SeeWhy's."""
    others = [name for name in rivals if name != FLOOR and not name.startswith(OURS)]
    name = quickest(rivals, [name for name in others if not _in_few_bits(name)])
    return "" if name is None or "to_ours" not in rivals[name] else f"{rivals[name]['to_ours']:.2f} ({name})"


def _in_few_bits(name: str) -> bool:
    """Return True for the name of a tool that computes in 8 or 16 bits."""
    return not {"int8", "bf16"}.isdisjoint(name.replace(",", "").split())


def memory_table(name: str, records: Records) -> str:
    """Return a table of peak memory with a row per rival and a column per model and batch size, or nothing."""
    question = QUESTIONS[name]
    groups = {
        f"{model}, batch {batch}": records[key(name, model, batch)]["rivals"]
        for batch in question.batches
        for model in question.models
        if key(name, model, batch) in records
    }
    groups = {title: rivals for title, rivals in groups.items() if any("peak_bytes" in r for r in rivals.values())}
    if not groups:
        return ""
    rows = [[r.name, *(_mebibytes(rivals.get(r.name, {})) for rivals in groups.values())] for r in question.rivals]
    return table(["peak memory, MiB", *groups], [row for row in rows if any(row[1:])])


def _mebibytes(record: Mapping[str, Any]) -> str:
    return f"{record['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in record else ""


def drift_table(records: Records) -> str:
    """Return a table of the drift that the quantised files state, or nothing."""
    rows = []
    for model in LITE_MODELS:
        drift = records.get(key(DRIFT, model, 1), {}).get("stored_drift")
        if drift is not None:
            values = [drift[f"correlation_{name}"] for name in ("median", "p5", "worst")]
            values += [drift["top1_agreement"], drift["top1_agreement_confident"], drift["logits_error"]]
            rows.append([model, drift["images"], *("–" if value is None else f"{value:.3f}" for value in values)])
    head = ["int8 against float32", "images", "correlation of maps, median", "5th percentile", "worst"]
    head += ["same class", "same class, p > 0.3", "relative L2 of logits"]
    return table(head, rows) if rows else ""


def multi_pass_table(records: Records) -> str:
    """Return the table of the multi-pass methods, a row per method, model and rival."""
    rows = []
    for name, question in MULTI_PASS.items():
        for model in question.models:
            rivals = records.get(key(name, model, 1), {}).get("rivals", {})
            rows += [
                [question.title, model, tool, _cell(tool, rivals, OURS), _mebibytes(record)]
                for tool, record in rivals.items()
            ]
    head = ["method", "network", "tool", "ms (÷ SeeWhy)", "peak memory, MiB"]
    return table(head, rows) if rows else "Not measured.\n"


def number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cold_table(records: Records) -> str:
    """Return the table of the cold starts."""
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
    """Return the lists of results that differ from SeeWhy's, of failures, and of the choices made for each tool."""
    lines = []
    choices: dict[tuple[str, str], list[str]] = {}
    for group, record in sorted(records.items()):
        for name, rival in record["rivals"].items():
            agreement = rival.get("agreement", {})
            if "note" in rival:
                choices.setdefault((name, rival["note"]), []).append(group)
            if rival.get("apart"):
                lines.append(f"- {group}: {name} † was measured apart, beside {FLOOR} and {OURS} alone")
            if "failed" in rival:
                lines.append(f"- {group}: {name} failed: {_plain(rival['failed'])}")
            elif agreement.get("same") is False:
                error = "" if agreement["error"] is None else f" {agreement['error']:.2g}"
                lines.append(
                    f"- {group}: {name} ≠: {agreement['measure']}{error}, tolerance {agreement['tolerance']:.2g}"
                )
            elif agreement and agreement["same"] is None:
                lines.append(f"- {group}: {name}: nothing to compare, because all values are zero")
    if not lines:
        lines.append("All results that could be compared agree.")
    lines += ["", "How each tool was run where there was a choice:", ""]
    lines += [f"- {name}: {note} ({', '.join(groups)})" for (name, note), groups in sorted(choices.items())]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
