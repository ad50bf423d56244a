"""The command `seewhy inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.errors import ModelFileError


@click.command()
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Say what the model file MODEL holds, and check that it is whole."""
    from seewhy.cli import model_report
    from seewhy.runtime.model_file import ModelFile

    signals.raise_from_now_on()
    read = ModelFile.inspect(model)
    if as_json:
        click.echo(json.dumps(model_report.facts(read), indent=2))
    else:
        click.echo(model_report.report(read))
    if read.damage is not None:
        raise ModelFileError(read.damage)
