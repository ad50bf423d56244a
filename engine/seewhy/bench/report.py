"""Report of `seewhy bench`: the figures as tables, and a sentence for each recommendation."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy._shared.text import printable
from seewhy.bench.measurement import FORWARD, Advice, Measurement, Operator, Report

_TOP = 12
"""Rows of a profile."""


def report(found: Report) -> str:
    machine = found.machine
    lines = [
        f"{printable(found.model)} ({printable(found.file)})",
        f"{printable(machine['processor'])}, {machine['usable_cores']} usable cores; onnxruntime "
        f"{machine['onnxruntime']}, seewhy {machine['seewhy']}",
        "Times are of one batch, in ms. A run is `workers` callers at once with `threads` threads each. ÷ forward "
        "compares medians.",
    ]
    for provider in dict.fromkeys(row.provider for row in found.rows):
        lines += ["", provider, *_table([row for row in found.rows if row.provider == provider])]
        lines += [sentence for advice in found.advice if advice.provider == provider for sentence in _advice(advice)]
    for key in dict.fromkeys((one.provider, one.what, one.batch) for one in found.operators):
        lines += ["", *_profile([one for one in found.operators if (one.provider, one.what, one.batch) == key])]
    return "\n".join(lines)


def _table(rows: Sequence[Measurement]) -> list[str]:
    width = max(len("what"), *(len(row.what) for row in rows))
    head = f"  {'batch':>5} {'workers':>7} {'threads':>7}  {'what':<{width}} {'p50':>9} {'p90':>9} {'p99':>9}"
    return [f"{head} {'runs':>5} {'images/s':>9} {'÷ forward':>9}", *(_line(row, width) for row in rows)]


def _line(row: Measurement, width: int) -> str:
    start = f"  {row.batch:>5} {row.workers:>7} {row.threads or '-':>7}  {row.what:<{width}}"
    if row.error is not None:
        return f"{start} no figures: {printable(row.error)}"
    times = " ".join(f"{time:>9.2f}" for time in (row.p50 or 0, row.p90 or 0, row.p99 or 0))
    ratio = "" if row.ratio is None or row.what == FORWARD else f"{row.ratio:.3f}"
    return f"{start} {times} {row.runs:>5} {row.images_per_second or 0:>9.1f} {ratio:>9}".rstrip()


def _advice(advice: Advice) -> list[str]:
    quickest, most = advice.quickest, advice.most
    return [
        f"  {advice.method}: soonest, {_setting(quickest)}: {quickest.p50 or 0:.1f} ms; most images, {_setting(most)}: "
        f"{most.images_per_second or 0:.1f} images/s"
    ]


def _setting(row: Measurement) -> str:
    threads = "" if row.threads is None else f", threads={row.threads}"
    workers = "" if row.workers == 1 else f" in {row.workers} threads of your own that share the Explainer"
    return f"batch_size={row.batch}{threads}{workers}"


def _profile(operators: Sequence[Operator]) -> list[str]:
    first = operators[0]
    lines = [f"{first.provider}, {first.what}, batch {first.batch}, one thread: where the time of one run goes"]
    shown = operators[:_TOP]
    width = max(len("operator"), *(len(one.type) for one in shown))
    lines.append(f"  {'part':<8} {'operator':<{width}} {'count':>5} {'ms':>9} {'share':>7}")
    for one in shown:
        kind = printable(one.type)
        lines.append(
            f"  {one.part:<8} {kind:<{width}} {one.count:>5} {one.milliseconds:>9.2f} {100 * one.share:>6.1f}%"
        )
    rest = operators[_TOP:]
    if rest:
        spent = sum(one.milliseconds for one in rest), 100 * sum(one.share for one in rest)
        count = sum(one.count for one in rest)
        lines.append(f"  {'':<8} {'others':<{width}} {count:>5} {spent[0]:>9.2f} {spent[1]:>6.1f}%")
    return lines
