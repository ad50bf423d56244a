"""The command `seewhy cut`."""

from __future__ import annotations

from pathlib import Path

import click

from seewhy._shared.text import printable
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand

_EXAMPLES = (
    Example("Keep only what Grad-CAM needs", "seewhy cut model.onnx --method gradcam -o small.onnx"),
    Example("Keep the finished map for a browser", "seewhy cut model.onnx --keep-output gradcam_map -o web.onnx"),
)


@click.command(cls=GroupedCommand, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option(
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="Keep what this method needs. Repeatable. `seewhy inspect MODEL` lists the methods that a file can serve.",
)
@click.option(
    "--keep-output",
    "outputs",
    metavar="NAME",
    multiple=True,
    help="Keep this output of the graph, too. Repeatable. `seewhy inspect MODEL` lists the outputs.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=NonEmptyPath(path_type=Path),
    required=True,
    help="Write the new model file here.",
)
def cut(model: Path, methods: tuple[str, ...], outputs: tuple[str, ...], output: Path) -> None:
    """Write a model file with only those parts of MODEL that some methods need.

    The new file computes the same numbers as MODEL. Programs that run it with onnxruntime alone are faster, because
    onnxruntime computes every node of a graph. SeeWhy itself prunes the graph before it runs, so it gains little.
    """
    from seewhy.cli.model_report import megabytes, served_methods
    from seewhy.explainer.model_cutting import cut as cut_model
    from seewhy.runtime.model_file import ModelFile

    signals.raise_on_signals()
    path = cut_model(model, output, methods, outputs)
    file = ModelFile.inspect(path)
    click.echo(printable(f"{path}: {megabytes(file)}; methods: {served_methods(file)}"))
