"""The command `seewhy bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath


@click.command()
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option("--method", "methods", multiple=True, help="Method; repeatable. Default: gradcam and guided-backprop.")
@click.option(
    "--batch", "batches", type=int, multiple=True, default=(1, 8, 32), show_default=True, help="Batch size; repeatable."
)
@click.option(
    "--threads",
    type=int,
    multiple=True,
    help="Threads, at most four for each core, or 16; repeatable. Default: one for each usable core.",
)
@click.option("--provider", "providers", multiple=True, help="onnxruntime provider, e.g. cuda or cpu; repeatable.")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Time for each row of the table.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Turns that this time is split into.")
@click.option("--profile", is_flag=True, help="Also say which operators take the time.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def bench(
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
    """Measure how quick the model file MODEL is on this machine, and which batch size and threads suit it."""
    from seewhy.bench import measurement
    from seewhy.bench import report as bench_report

    signals.raise_from_now_on()
    report = measurement.measure(
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
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else bench_report.format_report(report))


def _progress(done: int, total: int) -> None:
    """One line on the terminal, gone at the end."""
    click.echo("\r\x1b[K" if done == total else f"\r\x1b[Kmeasuring, {done}/{total} done", nl=False, err=True)
