"""`seewhy bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from seewhy.bench import measure
from seewhy.bench import report as bench_report


def run(
    model: Path,
    methods: tuple[str, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    providers: tuple[str, ...],
    seconds: float,
    rounds: int,
    profile: bool,
    as_json: bool,
) -> None:
    """Measure, and print the report."""
    report = measure.measure(
        model,
        methods=methods or None,
        batches=batches,
        threads=threads or None,
        providers=providers or None,
        seconds=seconds,
        rounds=rounds,
        profile=profile,
        progress=_progress if sys.stderr is not None and sys.stderr.isatty() else None,
    )
    click.echo(json.dumps(report.facts(), indent=2) if as_json else bench_report.report(report))


def _progress(done: int, total: int) -> None:
    """One line on the terminal, gone at the end."""
    click.echo("\r\x1b[K" if done == total else f"\r\x1b[Kmeasuring, {done}/{total} done", nl=False, err=True)
