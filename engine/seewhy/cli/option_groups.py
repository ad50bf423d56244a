"""Command class with options in named groups, examples in the help, and one-line errors for wrong arguments.

Use it as the `cls` of a command:

    @click.command(
        cls=GroupedCommand,
        groups={"Input": ["--list", "--size"], "Output": ["--output", "--format"]},
        examples=[Example("Explain every image in a folder", "seewhy explain model.onnx photos/ -o results")],
    )
    @click.option("-o", "--output", ...)
    ...

`seewhy explain --help` then prints a section for each group, in the order of the mapping, and a last section with the
options that no group names (at least `--help`):

    Input:
      --list FILE  ...

    Output:
      -o, --output FOLDER  ...

    Other options:
      -h, --help  ...

The examples follow. A subclass can print more between options and examples: it overrides `format_epilog`, writes its
own sections, and then calls `super().format_epilog`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from seewhy._shared.suggestions import closest_name
from seewhy.errors import SeewhyError

_OTHER_OPTIONS = "Other options"


class Example(NamedTuple):
    """One example at the end of a help page."""

    purpose: str
    """What the command does, as an imperative without a full stop."""
    command: str
    """The command line. The help never wraps it, so that it can be copied."""


class GroupedCommand(click.Command):
    """A command whose help lists options in groups, and which reports wrong arguments as a `SeewhyError`.

    Args:
        *args: Arguments of `click.Command`.
        groups: Title of each group -> options in it, each by any of its names, such as `--output`. The help keeps
            both orders.
        examples: Examples at the end of the help.
        **kwargs: Keyword arguments of `click.Command`.

    Raises:
        ValueError: If a group names an option that the command does not have, or two groups name the same option.
    """

    def __init__(
        self,
        *args: Any,
        groups: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[Example] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.groups: dict[str, list[click.Parameter]] = {
            title: self._options(title, names) for title, names in (groups or {}).items()
        }
        grouped = [option for options in self.groups.values() for option in options]
        repeated = next((option for i, option in enumerate(grouped) if option in grouped[:i]), None)
        if repeated is not None:
            raise ValueError(f"{self.name}: the option {repeated.opts[0]} is in a group twice")
        self.examples = tuple(examples)

    def _options(self, title: str, names: Sequence[str]) -> list[click.Parameter]:
        """Return the options with these names."""
        by_name = _by_name(self.params)
        missing = [name for name in names if name not in by_name]
        if missing:
            raise ValueError(f"{self.name}: the group {title!r} names {missing[0]}, which is not an option")
        return [by_name[name] for name in names]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, and one for the options that are in none."""
        grouped = [option for options in self.groups.values() for option in options]
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        others: list[click.Parameter] = [option for option in options if option not in grouped]
        sections = [*self.groups.items(), (_OTHER_OPTIONS if self.groups else "Options", others)]
        for title, members in sections:
            rows = [row for option in members if (row := option.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog of the command, if it has one, and the examples."""
        super().format_epilog(ctx, formatter)
        if not self.examples:
            return
        with formatter.section("Examples"):
            for i, (purpose, command) in enumerate(self.examples):
                if i:
                    formatter.write_paragraph()
                formatter.write_text(f"{purpose}:")
                with formatter.indentation():
                    formatter.write(f"{'':{formatter.current_indent}}{command}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            SeewhyError: If they are wrong. The message is one line; click's own errors repeat the usage above it.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise SeewhyError(usage_message(error, self.get_params(ctx))) from error


def usage_message(error: click.UsageError, options: Sequence[click.Parameter]) -> str:
    """Return the message of a click error as one line.

    Args:
        error: The error.
        options: Options of the command. If the error is an unknown option, the message suggests the closest one.
    """
    if not isinstance(error, click.NoSuchOption):
        return " ".join(error.format_message().split())
    match = closest_name(error.option_name, _by_name(options))
    hint = "" if match is None else f" Did you mean {match}?"
    return f"No such option: {error.option_name}.{hint}"


def _by_name(options: Sequence[click.Parameter]) -> dict[str, click.Parameter]:
    """Return the options under each of their names."""
    return {
        name: option
        for option in options
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
