"""Types of command-line arguments."""

from __future__ import annotations

from typing import Any

import click

from seewhy.errors import SeewhyError


class NonEmptyPath(click.Path):
    """A path. An empty one, which an unset variable of the shell leaves, is refused: it means the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as `click.Path` does.

        Raises:
            SeewhyError: If it is empty.
        """
        if value == "":
            name = "the path" if param is None else param.get_error_hint(ctx).replace("'", "")
            raise SeewhyError(f"{name} is empty; is a variable not set?")
        return super().convert(value, param, ctx)
