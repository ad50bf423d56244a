"""The command `seewhy bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand

_GROUPS = {
    "What to measure": ["--method", "--batch", "--threads", "--provider"],
    "Accuracy": ["--seconds", "--rounds"],
    "Report": ["--profile", "--json"],
}
_EXAMPLES = (
    Example("Measure the forward pass, Grad-CAM and guided backpropagation", "seewhy bench model.onnx"),
    Example(
        "Compare the CPU with a CUDA GPU at two batch sizes",
        "seewhy bench model.onnx --provider cpu --provider cuda --batch 1 --batch 16",
    ),
    Example("Find the slowest operators of Grad-CAM", "seewhy bench model.onnx --method gradcam --profile"),
)


@click.command(cls=GroupedCommand, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option(
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="Measure this method. Repeatable. The default is gradcam and guided-backprop.",
)
@click.option(
    "--batch",
    "batches",
    metavar="IMAGES",
    type=int,
    multiple=True,
    default=(1, 8, 32),
    show_default=True,
    help="Measure this batch size. Repeatable.",
)
@click.option(
    "--threads",
    metavar="NUMBER",
    type=int,
    multiple=True,
    help="Measure with this many threads, at most four for each core (or 16 if that is more). Repeatable. The default "
    "is one for each usable core.",
)
@click.option(
    "--provider",
    "providers",
    metavar="NAME",
    multiple=True,
    help="Measure on this onnxruntime execution provider, such as cuda or cpu. Repeatable. The default is CUDA if it "
    "is usable, otherwise the CPU.",
)
@click.option(
    "--seconds",
    metavar="NUMBER",
    type=float,
    default=2.0,
    show_default=True,
    help="Measure each row of the table for this many seconds.",
)
@click.option(
    "--rounds",
    metavar="NUMBER",
    type=int,
    default=5,
    show_default=True,
    help="Split that time into this many rounds. Every row has a turn in each round, so that other load on the machine "
    "affects all rows alike.",
)
@click.option("--profile", is_flag=True, help="Also print which operators take the time, for the largest batch size.")
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
    """Measure how fast the model file MODEL is on this machine.

    The report has one row for each method, batch size and number of threads. It recommends the settings with the lowest
    latency and with the highest throughput.
    """
    from seewhy.bench import measurement
    from seewhy.bench import report as bench_report

    signals.raise_on_signals()
    report = measurement.measure(
        model,
        methods=methods or None,
        batches=batches,
        threads=threads or None,
        providers=providers or None,
        seconds=seconds,
        rounds=rounds,
        profile=profile,
        progress=_show_progress if sys.stderr is not None and sys.stderr.isatty() else None,
    )
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else bench_report.format_report(report))


def _show_progress(done: int, total: int) -> None:
    """Print the progress on one line of the terminal, and clear it at the end."""
    click.echo("\r\x1b[K" if done == total else f"\r\x1b[Kmeasuring, {done}/{total} done", nl=False, err=True)
