"""Conversion of decoded JSON values: each function returns the value that the contract wants, or raises ValueError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seewhy.contract.constants import (
    LONGEST_TEXT,
    MAX_PIXELS,
)

# Of any count; the next number does not fit into 32 bits.
_MOST = 2**31 - 1


def object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, for `json.loads`, in which no name may stand twice: readers would take different values.

    Raises:
        ValueError: A name stands there twice.
    """
    twice = first_repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"{twice[:60]!r} stands there twice")
    return dict(pairs)


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stood there before, or None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def require(condition: bool, wanted: str, value: Any) -> None:
    """Raise a ValueError that says what was expected, unless `condition` holds."""
    if not condition:
        raise ValueError(f"expected {wanted}, not {json.dumps(value)[:60]}")


def text(value: Any) -> str:
    """Return a string of UTF-8 of at most `LONGEST_TEXT` bytes."""
    # JSON may hold half of a character, which no file and no terminal takes.
    whole = isinstance(value, str) and value.encode(errors="replace").decode() == value
    require(whole, "a string", value)
    require(len(value.encode()) <= LONGEST_TEXT, f"a string of at most {LONGEST_TEXT} bytes", value)
    return str(value)


def sha256_digits(value: Any) -> str:
    """Return the 64 hexadecimal digits of a SHA-256."""
    require(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, "64 hexadecimal digits", value)
    return str(value)


def _is_integer(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= _MOST


def flag(value: Any) -> bool:
    """Return true or false."""
    require(isinstance(value, bool), "true or false", value)
    return bool(value)


def count(value: Any) -> int:
    """Return an integer from 0 that fits into 32 bits."""
    require(_is_integer(value, 0), "a count", value)
    return int(value)


def positive(value: Any) -> int:
    """Return an integer from 1 that fits into 32 bits."""
    require(_is_integer(value, 1), "a positive integer of 32 bits", value)
    return int(value)


def number(value: Any) -> float:
    """Return a finite number as a float."""
    # json reads NaN and Infinity, which JSON does not have.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    require(number, "a finite number", value)
    return float(value)


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    """Return a converter that takes one of the strings in `choices`."""

    def convert(value: Any) -> str:
        require(value in choices, "one of " + ", ".join(choices), value)
        return str(value)

    return convert


def optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a converter that takes null, too, as None."""
    return lambda value: None if value is None else convert(value)


def tuple_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a converter of lists, whose items `convert` converts."""

    def converted(value: Any) -> tuple[Any, ...]:
        require(isinstance(value, list), "a list", value)
        return tuple(convert(item) for item in value)

    return converted


def image_size(value: Any) -> tuple[int, int]:
    """Return (height, width) of at most `MAX_PIXELS` pixels."""
    require(isinstance(value, list) and len(value) == 2, "two integers", value)
    height, width = positive(value[0]), positive(value[1])
    require(height * width <= MAX_PIXELS, f"at most {MAX_PIXELS} pixels", value)
    return height, width


def dict_of(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Return a converter of objects, whose values `convert` converts."""

    def converted(value: Any) -> dict[str, Any]:
        require(isinstance(value, dict), "an object", value)
        return {text(key): convert(item) for key, item in value.items()}

    return converted


def fields(
    added: Mapping[str, Callable[[Any], Any]] | None = None, **converters: Callable[[Any], Any]
) -> Callable[[Any], dict[str, Any]]:
    """Return a converter of objects with these keys, and perhaps those `added` to the schema later.

    Other keys are ignored.
    """

    def converted(value: Any) -> dict[str, Any]:
        require(isinstance(value, dict), "an object", value)
        missing = [key for key in converters if key not in value]
        require(not missing, f"an object with {', '.join(converters)}", value)
        late = {key: convert for key, convert in (added or {}).items() if key in value}
        return {key: convert(value[key]) for key, convert in {**converters, **late}.items()}

    return converted
