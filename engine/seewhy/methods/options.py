"""Options of methods: parse and validate their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from seewhy._shared.checks import is_integer
from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError, MethodError

Options = Mapping[str, Any]
"""Values of a method's options by name."""


@dataclass(frozen=True)
class Option:
    """One option of a method."""

    name: str
    """Name, as in `--option METHOD.NAME=VALUE`."""
    default: Any
    """Value if the user gives none."""
    validate: Callable[[Any], Any]
    """Function that returns the value in the method's type, or raises a ValueError whose text names the allowed values;
    see `integer`, `number` and `choice`."""
    meaning: str
    """One sentence for the help."""


def integer(low: int, high: int) -> Callable[[Any], int]:
    """Return a function that validates integers from `low` to `high`."""

    def validate(value: Any) -> int:
        if not is_integer(value) or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high}")
        return int(value)

    return validate


def number(low: float, high: float) -> Callable[[Any], float]:
    """Return a function that validates numbers from `low` to `high`."""

    def validate(value: Any) -> float:
        # The comparison is false for NaN.
        if not isinstance(value, Real) or isinstance(value, bool) or not low <= float(value) <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return validate


def choice(names: Iterable[str]) -> Callable[[Any], str]:
    """Return a function that validates one of some names."""
    known = tuple(names)

    def validate(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return value

    return validate


def resolve_options(
    method: str, known: Sequence[Option], given: Any, error: type[ArgumentError] = MethodError
) -> dict[str, Any]:
    """Return a value for every option of a method or metric: the given one, or the default.

    Args:
        method: Name of the method, for messages.
        known: Options that the method has.
        given: Mapping of names to values, or None.
        error: Class of the error to raise.

    Returns:
        Values by name, one for each option that the method has.

    Raises:
        ArgumentError: If the method does not have an option, or a value is not allowed.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise error(f"the options of {method} must be a dict of names and values, not {brief(given)}")
    names = [option.name for option in known]
    for name in given:
        if name not in names:
            allowed = f"it has {', '.join(names)}." if names else "it has none."
            raise error(f"{method} has no option {brief(name)}; {allowed}{did_you_mean(name, names)}")
    values = {}
    for option in known:
        value = given.get(option.name, option.default)
        try:
            values[option.name] = option.validate(value)
        except ValueError as allowed:
            raise error(f"{method}: {option.name} must be {allowed}, not {brief(value)}") from None
    return values


def parse_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse texts of the form `METHOD.NAME=VALUE`.

    Args:
        texts: The texts. A value that looks like a number becomes one.

    Returns:
        Values by method and option.

    Raises:
        MethodError: If a text has another form, or gives an option twice.
    """
    result: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, option = name.rpartition(".")
        if not (method and dot and option and equals):
            raise MethodError(
                f"an option must have the form METHOD.NAME=VALUE, such as smoothgrad.samples=50, not {brief(text)}"
            )
        if option in result.setdefault(method, {}):
            raise MethodError(f"the option {name} is given twice")
        result[method][option] = _value(value)
    return result


def _value(text: str) -> int | float | str:
    # Python refuses to read integers of thousands of digits. No option is that long.
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return int(text)
    try:
        return _WrittenNumber(text)
    except ValueError:
        return text


class _WrittenNumber(float):
    """A number that messages show in the user's spelling."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
