"""Types of command-line arguments."""

from __future__ import annotations

from typing import Any

import click

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import SeewhyError


class NonEmptyPath(click.Path):
    """A path that is not empty. An empty path usually comes from an unset variable of the shell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the path as `click.Path` does.

        Args:
            value: The path as the user typed it, or a default.
            param: The option or argument, named in messages.
            ctx: The context of the command.

        Returns:
            The path as `click.Path` returns it.

        Raises:
            SeewhyError: If the path is empty, because it would mean the current folder.
        """
        if value == "":
            name = "the path" if param is None else param.get_error_hint(ctx).replace("'", "")
            raise SeewhyError(f"{name} is empty; is a variable not set?")
        return super().convert(value, param, ctx)


class SuggestingChoice(click.Choice[str]):
    """A choice whose error message suggests the closest allowed value."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the message about a value that is not allowed."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(value, self.choices)
