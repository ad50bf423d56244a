"""The command `seewhy quantize`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from seewhy._shared.text import printable
from seewhy.cli import job_options as options
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.errors import SeewhyError

_GROUPS = {
    "Images": ["--list"],
    "Accuracy": ["--max-drift", "--keep-float"],
    "Result": ["--output"],
    "Speed": ["--threads"],
}
_EXAMPLES = (
    Example("Quantise a model with your images", "seewhy quantize model.onnx photos/ -o small.onnx"),
    Example(
        "Accept more drift and keep five layers in float32",
        "seewhy quantize model.onnx photos/ -o small.onnx --max-drift 0.05 --keep-float 5",
    ),
)


@click.command(cls=GroupedCommand, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.argument("images", type=click.Path(path_type=str), nargs=-1)
@options.image_lists("Use", "; targets are ignored")
@click.option(
    "--max-drift",
    metavar="NUMBER",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Write no file whose maps drift further: 1 minus the 5th percentile of their correlation with float32's maps. "
    "1 accepts every file.",
)
@click.option(
    "--keep-float",
    metavar="LAYERS",
    type=click.IntRange(min=0),
    help="Keep this many layers in float32, those that cost the maps most. By default, as many as bring the drift on "
    "the calibration images to a third of --max-drift.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=NonEmptyPath(path_type=Path),
    required=True,
    help="Write the quantised model file here.",
)
@options.threads
def quantize(
    model: Path,
    images: Sequence[str],
    lists: Sequence[str],
    max_drift: float,
    keep_float: int | None,
    output: Path,
    threads: int | None,
) -> None:
    """Write a model file whose backbone computes in 8 bits, from the float32 file MODEL.

    Some of the IMAGES choose the ranges of the 8-bit values, and the others measure how far maps and classes drift from
    float32, so give images like those that you will explain. IMAGES are files, folders of files, patterns such as
    'photos/**/*.jpg', and tar archives. The result serves CAM, Grad-CAM and the other methods of maps; methods that
    need a gradient of the image need MODEL. Images that cannot be read are skipped with a warning.

    The exit status is 0, or 2 if no file was written.
    """
    from seewhy.cli.job_control import image_arguments
    from seewhy.cli.model_report import megabytes, served_methods
    from seewhy.cli.quantization_report import drift_table, precision, wrapped
    from seewhy.quantization.quantize import quantize as quantize_model
    from seewhy.runtime.model_file import ModelFile

    signals.raise_on_signals()
    paths, lists = image_arguments(images, lists)
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    skipped = 0

    def skip(error: SeewhyError) -> None:
        nonlocal skipped
        skipped += 1
        _clear_line(on_terminal)
        click.echo(f"seewhy: warning: {printable(str(error))} (skipped)", err=True)

    try:
        found = quantize_model(
            model,
            paths,
            output,
            lists=lists,
            max_drift=max_drift,
            keep_float=keep_float,
            threads=threads,
            progress=_show_progress if on_terminal else None,
            skipped=skip,
        )
    finally:
        _clear_line(on_terminal)
    small, original = ModelFile.inspect(output), ModelFile.inspect(model)
    lines = [
        printable(f"{output}: {megabytes(small)} instead of {megabytes(original)}"),
        *wrapped("precision: ", precision(found)),
        *wrapped("methods: ", served_methods(small)),
        *([f"skipped: {skipped} image{'s' * (skipped != 1)} that cannot be read"] if skipped else []),
        "",
        *drift_table(found),
        "",
    ]
    click.echo("\n".join(lines))
    given = [*images, *(part for one in lists for part in ("--list", str(one)))]
    # A pattern that the shell expands gives many names, and skipped ones would fail again.
    repeated = "IMAGES" if skipped or len(given) > 2 else shlex.join(given)
    click.echo("Explain images with it:")
    click.echo(printable(f"  {shlex.join(['seewhy', 'explain', str(output)])} {repeated} -o explanations"))


def _clear_line(on_terminal: bool) -> None:
    """Remove the running phase from the terminal."""
    if on_terminal:
        click.echo("\r\x1b[K", nl=False, err=True)


def _show_progress(phase: str, done: int, total: int) -> None:
    """Print the running phase on one line of the terminal."""
    click.echo(f"\r\x1b[K{phase}, {done}/{total} done", nl=False, err=True)
