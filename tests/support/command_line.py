"""Calls of the `seewhy` command in the process of the test."""

from __future__ import annotations

import re

from click.testing import CliRunner, Result

from seewhy.cli.main import main


def run(*arguments: object) -> Result:
    """Run `seewhy` with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="seewhy")


def failed(result: Result, words: str) -> None:
    """Assert one line with `words` on standard error, exit status 2, and no traceback."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(f"seewhy: error: .*{words}.*\n", result.stderr), result.stderr
    assert isinstance(result.exception, SystemExit)
