"""The command `seewhy verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from seewhy._shared.text import printable
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand

_EXIT_PROBLEMS = 1


@click.command(cls=GroupedCommand, examples=[Example("Check the results of a job", "seewhy verify results")])
@click.argument("folder", metavar="OUT", type=NonEmptyPath(path_type=Path))
def verify(folder: Path) -> None:
    """Check the results in the output folder OUT of `seewhy explain`.

    Every file that manifest.jsonl names must exist with the recorded size and SHA-256. Files that are named like
    results but are not in the manifest are listed, too. To replace a wrong file, delete it and run the same `seewhy
    explain` command again.

    The exit status is 0, or 1 if a result is missing, short or changed, or 2 if OUT cannot be checked.
    """
    from seewhy.bulk.verify import Verification

    signals.raise_on_signals()
    check = Verification(folder)
    for found in check:
        click.echo(printable(f"{found.path}: {found.problem}"))
    unlisted = f", {check.unlisted} unlisted" if check.unlisted else ""
    click.echo(
        f"{check.done + check.failed} images in {printable(str(folder))}: {check.done} done, {check.failed} failed; "
        f"{check.files} files, {check.problems or 'no'} problem{'' if check.problems == 1 else 's'}{unlisted}"
    )
    sys.exit(_EXIT_PROBLEMS if check.problems else 0)
