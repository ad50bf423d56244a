"""Tests of `seewhy.cli.option_groups`: sections and examples in the help, and one-line errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner

from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.errors import SeewhyError

EXAMPLES = [Example("Draw a map", "draw map.png --size 3"), Example("Draw a long one", f"draw {'x' * 100}.png")]


def command(groups: Mapping[str, Sequence[str]] | None, examples: Sequence[Example] = ()) -> GroupedCommand:
    """Return a command with the argument FILE and the options --size, --name and --check/--no-check."""

    @click.command("draw", cls=GroupedCommand, groups=groups, examples=examples, epilog="The end.")
    @click.argument("file")
    @click.option("--size", type=int, help="Width of the map in pixels.")
    @click.option("-n", "--name", help="Title of the map.")
    @click.option("--check/--no-check", default=True, help="Check the map.")
    def draw(**_: Any) -> None:
        """Draw a map."""

    assert isinstance(draw, GroupedCommand)
    return draw


def help_text(command: click.Command) -> str:
    return CliRunner().invoke(command, ["--help"], prog_name="draw").stdout


def error_text(*arguments: str) -> str:
    """Return the message for wrong arguments."""
    with pytest.raises(SeewhyError) as caught:
        command(None).main([*arguments], standalone_mode=False)
    return str(caught.value)


def test_groups_are_sections_in_the_order_of_the_mapping() -> None:
    lines = help_text(command({"Text": ["--name"], "Map": ["--no-check", "--size"]})).splitlines()
    starts = [line.split("  ")[1].strip() if line.startswith(" ") else line for line in lines if line]
    assert starts == [
        *("Usage: draw [OPTIONS] FILE", "Draw a map."),
        *("Text:", "-n, --name TEXT", "Map:", "--check / --no-check", "--size INTEGER"),
        *("Other options:", "--help", "The end."),
    ]


def test_without_groups_there_is_one_section() -> None:
    text = help_text(command(None))
    assert "\nOptions:\n  --size INTEGER" in text and "Other options" not in text and "Examples" not in text


def test_examples_come_last_and_are_not_wrapped() -> None:
    first, second = EXAMPLES
    assert help_text(command(None, EXAMPLES)).endswith(
        f"  The end.\n\nExamples:\n  Draw a map:\n    {first.command}\n\n  Draw a long one:\n    {second.command}\n"
    )


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"Map": ["--sise"]}, "draw: the group 'Map' names --sise, which is not an option"),
        ({"Map": ["--size"], "Text": ["--size"]}, "draw: the option --size is in a group twice"),
        ({"Map": ["file"]}, "which is not an option"),
    ],
)
def test_groups_that_do_not_match_the_options(groups: Mapping[str, Sequence[str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        command(groups)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--sise", "No such option: --sise. Did you mean --size?"),
        ("--NAME", "No such option: --NAME. Did you mean --name?"),
        ("--no-chek", "No such option: --no-chek. Did you mean --no-check?"),
        ("--hlep", "No such option: --hlep. Did you mean --help?"),
        ("--volume", "No such option: --volume."),
        ("-x", "No such option: -x."),
    ],
)
def test_an_unknown_option_names_the_closest_one(option: str, message: str) -> None:
    assert error_text("file", option) == message


def test_other_errors_are_one_line() -> None:
    assert error_text() == "Missing argument 'FILE'."
    assert error_text("file", "--size", "a\nb") == "Invalid value for '--size': 'a\\nb' is not a valid integer."
