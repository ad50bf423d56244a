"""Report of `seewhy bench` as text: tables of the measurements, and recommendations."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy._shared.text import printable
from seewhy.bench.measurement import FORWARD, Advice, Measurement, Operator, Report

_MAX_OPERATORS = 12
"""Maximum number of operators in the table of a profile."""


def format_report(report: Report) -> str:
    """Return a report as text."""
    machine = report.machine
    features = "" if machine["cpu_features"] is None else f" ({', '.join(machine['cpu_features'])})"
    lines = [
        f"{printable(report.model)} ({printable(report.file)})",
        f"{printable(machine['processor'])}{features}, {machine['usable_cores']} usable cores; onnxruntime "
        f"{machine['onnxruntime']}, seewhy {machine['seewhy']}",
        "Times are per batch, in ms. `workers` callers run batches in parallel, each with `threads` threads. ÷ forward "
        "compares medians.",
    ]
    for provider in dict.fromkeys(row.provider for row in report.rows):
        lines += ["", provider, *_table([row for row in report.rows if row.provider == provider])]
        lines += [_advice(advice) for advice in report.advice if advice.provider == provider]
    for key in dict.fromkeys((one.provider, one.method, one.batch) for one in report.operators):
        lines += ["", *_profile([one for one in report.operators if (one.provider, one.method, one.batch) == key])]
    return "\n".join(lines)


def _table(rows: Sequence[Measurement]) -> list[str]:
    """Return the lines of a table of measurements."""
    width = max(len("method"), *(len(row.method) for row in rows))
    head = f"  {'batch':>5} {'workers':>7} {'threads':>7}  {'method':<{width}} {'p50':>9} {'p90':>9} {'p99':>9}"
    return [f"{head} {'runs':>5} {'images/s':>9} {'÷ forward':>9}", *(_line(row, width) for row in rows)]


def _line(row: Measurement, width: int) -> str:
    """Return the line of one measurement."""
    start = f"  {row.batch:>5} {row.workers:>7} {row.threads or '-':>7}  {row.method:<{width}}"
    if row.error is not None:
        return f"{start} not measured: {printable(row.error)}"
    times = " ".join(f"{time:>9.2f}" for time in (row.p50 or 0, row.p90 or 0, row.p99 or 0))
    ratio = "" if row.ratio is None or row.method == FORWARD else f"{row.ratio:.3f}"
    return f"{start} {times} {row.runs:>5} {row.images_per_second or 0:>9.1f} {ratio:>9}".rstrip()


def _advice(advice: Advice) -> str:
    """Return the recommendation for a method as a line of text."""
    latency, throughput = advice.lowest_latency, advice.highest_throughput
    return (
        f"  {advice.method}: lowest latency with {_settings(latency)}: {latency.p50 or 0:.1f} ms; highest throughput "
        f"with {_settings(throughput)}: {throughput.images_per_second or 0:.1f} images/s"
    )


def _settings(row: Measurement) -> str:
    """Return the settings of a measurement as text."""
    threads = "" if row.threads is None else f", threads={row.threads}"
    workers = "" if row.workers == 1 else f" in {row.workers} threads of your own that share the Explainer"
    return f"batch_size={row.batch}{threads}{workers}"


def _profile(operators: Sequence[Operator]) -> list[str]:
    """Return the lines of a table of operators."""
    first = operators[0]
    lines = [
        f"{first.provider}, {first.method}, batch {first.batch}, one thread: time of each operator type in one run"
    ]
    shown = operators[:_MAX_OPERATORS]
    width = max(len("operator"), *(len(one.type) for one in shown))
    lines.append(f"  {'part':<8} {'operator':<{width}} {'count':>5} {'ms':>9} {'share':>7}")
    for one in shown:
        kind = printable(one.type)
        lines.append(
            f"  {one.part:<8} {kind:<{width}} {one.count:>5} {one.milliseconds:>9.2f} {100 * one.share:>6.1f}%"
        )
    rest = operators[_MAX_OPERATORS:]
    if rest:
        milliseconds, percent = sum(one.milliseconds for one in rest), 100 * sum(one.share for one in rest)
        count = sum(one.count for one in rest)
        lines.append(f"  {'':<8} {'others':<{width}} {count:>5} {milliseconds:>9.2f} {percent:>6.1f}%")
    return lines
