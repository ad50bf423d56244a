"""Call the `seewhy` command inside the test process, and check its output."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner, Result

from seewhy.cli.main import main
from support.jobs.broken_jobs import JOB_FILES


def run(*arguments: object) -> Result:
    """Run `seewhy` with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="seewhy")


def failed(result: Result, words: str) -> None:
    """Assert one line with `words` on standard error, exit status 2, and no traceback."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(f"seewhy: error: .*{words}.*\n", result.stderr), result.stderr
    assert isinstance(result.exception, SystemExit)


def results(folder: Path) -> list[str]:
    """Return the sorted names of the result files below a folder, without the manifest, `run.json` and the lock."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name not in JOB_FILES)
