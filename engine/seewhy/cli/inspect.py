"""The command `seewhy inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.errors import ModelFileError

_EXAMPLES = (
    Example("Describe a model file", "seewhy inspect model.onnx"),
    Example("Read its metadata in another program", "seewhy inspect model.onnx --json"),
)


@click.command(cls=GroupedCommand, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Describe the model file MODEL, and check that it is intact.

    The report lists the methods that the file can serve, its classes, its preprocessing, and how closely its results
    agree with PyTorch.

    The exit status is 0, or 2 if the file is damaged or cannot be read.
    """
    from seewhy.cli import model_report
    from seewhy.runtime.model_file import ModelFile

    signals.raise_on_signals()
    file = ModelFile.inspect(model)
    if as_json:
        click.echo(json.dumps(model_report.facts(file), indent=2))
    else:
        click.echo(model_report.report(file))
    if file.damage is not None:
        raise ModelFileError(file.damage)
