"""Options of methods: which there are, and what a user may give for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import MethodError

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """One option of a method."""

    name: str
    default: Any
    validate: Callable[[Any], Any]
    """Returns the value as the method takes it, or raises ValueError with what it should have been."""
    meaning: str


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A check for integers from `low` to `high`."""

    def check(value: Any) -> int:
        if not is_integer(value) or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high}")
        return int(value)

    return check


def number(low: float, high: float) -> Callable[[Any], float]:
    """A check for numbers from `low` to `high`."""

    def check(value: Any) -> float:
        # NaN is not between the two either.
        if not (isinstance(value, (float, np.floating)) or is_integer(value)) or not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def choice(names: Iterable[str]) -> Callable[[Any], str]:
    """A check for one of some names."""
    known = tuple(names)

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return value

    return check


def resolve_options(method: str, known: Sequence[Option], given: Any) -> dict[str, Any]:
    """Every option of `method` with its value: the one `given`, a mapping or None, or else the default.

    Raises:
        MethodError: an option that the method does not have, or a value that it does not take.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise MethodError(f"the options of {method} must be a dict of names and values, not {brief(given)}")
    names = [option.name for option in known]
    for name in given:
        if name not in names:
            there_are = f"it has {', '.join(names)}" if names else "it has none"
            raise MethodError(f"{method} has no option {brief(name)}; {there_are}")
    values = {}
    for option in known:
        value = given.get(option.name, option.default)
        try:
            values[option.name] = option.validate(value)
        except ValueError as error:
            raise MethodError(f"{method}: {option.name} must be {error}, not {brief(value)}") from None
    return values


def parse_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`METHOD.OPTION=VALUE` texts -> {method: {option: value}}; a value that reads as a number is one.

    Raises:
        MethodError: a text of another form, or an option that is given twice.
    """
    result: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, option = name.rpartition(".")
        if not (method and dot and option and equals):
            raise MethodError(f"an option is METHOD.NAME=VALUE, such as smoothgrad.samples=50, not {brief(text)}")
        if option in result.setdefault(method, {}):
            raise MethodError(f"the option {name} is given twice")
        result[method][option] = _value(value)
    return result


def _value(text: str) -> int | float | str:
    # Python refuses to read integers of thousands of digits; no option is that long.
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return int(text)
    try:
        return _Number(text)
    except ValueError:
        return text


class _Number(float):
    """A number that errors show as it was written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
