"""The command `seewhy verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from seewhy._shared.text import printable
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath

_EXIT_PROBLEMS = 1


@click.command()
@click.argument("folder", metavar="OUT", type=NonEmptyPath(path_type=Path))
def verify(folder: Path) -> None:
    """Check the results in the output folder OUT of `seewhy explain` against its manifest.

    Every file that manifest.jsonl names must be there, with the size and the SHA-256 that were recorded. Files that
    look like results and that no line names are listed, too. To replace what is wrong, delete it and run the same
    `seewhy explain` command again.

    Exit status: 0; 1 if a result is missing, short or changed; 2 if OUT cannot be checked.
    """
    from seewhy.bulk.verify import Verification

    signals.raise_from_now_on()
    check = Verification(folder)
    for found in check:
        click.echo(printable(f"{found.path}: {found.problem}"))
    unlisted = f", {check.unlisted} unlisted" if check.unlisted else ""
    click.echo(
        f"{check.done + check.failed} images in {printable(str(folder))}: {check.done} done, {check.failed} failed; "
        f"{check.files} files, {check.problems or 'no'} problem{'' if check.problems == 1 else 's'}{unlisted}"
    )
    sys.exit(_EXIT_PROBLEMS if check.problems else 0)
