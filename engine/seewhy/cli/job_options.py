"""Options that several commands share, as decorators for click commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from seewhy.cli.click_types import NonEmptyPath

_Command = TypeVar("_Command", bound=Callable[..., Any])


def image_lists(purpose: str, further_columns: str) -> Callable[[_Command], _Command]:
    """Return the option --list, whose help says what the images are for and which further columns are read."""
    return click.option(
        "--list",
        "lists",
        metavar="FILE",
        type=click.Path(path_type=str),
        multiple=True,
        help=f"{purpose} the images that a file lists: a text file with one path per line, or a .csv file with a "
        f"column path{further_columns}. '-' reads standard input. Repeatable.",
    )


lists = image_lists("Explain", " and optional columns target and id")

plugins = click.option(
    "--plugin",
    "plugins",
    metavar="FILE",
    type=NonEmptyPath(path_type=str),
    multiple=True,
    help="Run a Python file that registers methods or metrics of your own. Repeatable. The file runs with all your "
    "rights.",
)

output = click.option(
    "-o",
    "--output",
    "folder",
    metavar="FOLDER",
    type=NonEmptyPath(path_type=Path),
    required=True,
    help="Write the results into this folder. It is created if it does not exist.",
)

retry_failed = click.option(
    "--retry-failed", is_flag=True, help="Explain images again that failed in earlier attempts."
)

restart = click.option("--restart", is_flag=True, help="Discard what earlier attempts recorded in the output folder.")

changed = click.option(
    "--changed", is_flag=True, help="Explain images again whose files have changed since they were explained."
)

fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first image that fails.")

max_failure_rate = click.option(
    "--max-failure-rate",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Stop when more than this share of at least 100 images has failed.",
)

threads = click.option(
    "--threads",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="Use this many threads, at most four for each core (or 16 if that is more). The default is one for each core.",
)

providers = click.option(
    "--provider",
    "providers",
    metavar="NAME",
    multiple=True,
    help="Run on this onnxruntime execution provider, such as cuda or cpu. Repeatable, in order of preference.",
)

quiet = click.option("-q", "--quiet", is_flag=True, help="Print no line for each image.")

no_verify = click.option("--no-verify", is_flag=True, help="Do not verify the SHA-256 of the model file.")
