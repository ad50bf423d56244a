"""Converters of decoded JSON values. Each returns the value as the contract defines it, or raises a ValueError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seewhy.contract.constants import LONGEST_TEXT, MAX_PIXELS

# Largest count: the largest signed integer of 32 bits.
_MOST = 2**31 - 1


def object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict, and refuse repeated names, of which readers would use different values.

    Args:
        pairs: Names and values, as `json.loads` passes them to its `object_pairs_hook`.

    Returns:
        The values by name.

    Raises:
        ValueError: If a name is repeated.
    """
    twice = first_repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"{twice[:60]!r} is given twice")
    return dict(pairs)


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that repeats an earlier one, or None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def require(condition: bool, wanted: str, value: Any) -> None:
    """Raise a ValueError that names the expected and the actual value, unless `condition` is true."""
    if not condition:
        raise ValueError(f"expected {wanted}, not {json.dumps(value)[:60]}")


def text(value: Any) -> str:
    """Return a string that is valid in UTF-8 and has at most `LONGEST_TEXT` bytes."""
    # JSON may contain half of a surrogate pair, which cannot be written to a file or a terminal.
    whole = isinstance(value, str) and value.encode(errors="replace").decode() == value
    require(whole, "a string", value)
    require(len(value.encode()) <= LONGEST_TEXT, f"a string of at most {LONGEST_TEXT} bytes", value)
    return str(value)


def sha256_digits(value: Any) -> str:
    """Return the 64 hexadecimal digits of a SHA-256."""
    require(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, "64 hexadecimal digits", value)
    return str(value)


def _is_integer(value: Any, low: int) -> bool:
    """Return True for an integer from `low` to the largest of 32 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= _MOST


def flag(value: Any) -> bool:
    """Return a boolean."""
    require(isinstance(value, bool), "true or false", value)
    return bool(value)


def count(value: Any) -> int:
    """Return an integer of at least 0 that fits into 32 bits."""
    require(_is_integer(value, 0), "a count", value)
    return int(value)


def positive(value: Any) -> int:
    """Return an integer of at least 1 that fits into 32 bits."""
    require(_is_integer(value, 1), "a positive integer of 32 bits", value)
    return int(value)


def number(value: Any) -> float:
    """Return a finite number as a float."""
    # Python's json module accepts NaN and Infinity, which are not valid JSON.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    require(number, "a finite number", value)
    return float(value)


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    """Return a converter that accepts the strings in `choices`."""

    def convert(value: Any) -> str:
        require(value in choices, "one of " + ", ".join(choices), value)
        return str(value)

    return convert


def optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a converter that also accepts null, as None."""
    return lambda value: None if value is None else convert(value)


def tuple_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a converter of lists that converts each element with `convert`."""

    def converted(value: Any) -> tuple[Any, ...]:
        require(isinstance(value, list), "a list", value)
        return tuple(convert(item) for item in value)

    return converted


def image_size(value: Any) -> tuple[int, int]:
    """Return (height, width) in pixels, of at most `MAX_PIXELS` pixels in total."""
    require(isinstance(value, list) and len(value) == 2, "two integers", value)
    height, width = positive(value[0]), positive(value[1])
    require(height * width <= MAX_PIXELS, f"at most {MAX_PIXELS} pixels", value)
    return height, width


def dict_of(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Return a converter of objects that converts each value with `convert`."""

    def converted(value: Any) -> dict[str, Any]:
        require(isinstance(value, dict), "an object", value)
        return {text(key): convert(item) for key, item in value.items()}

    return converted


def fields(
    added: Mapping[str, Callable[[Any], Any]] | None = None, **converters: Callable[[Any], Any]
) -> Callable[[Any], dict[str, Any]]:
    """Return a converter of objects with fixed keys. It ignores unknown keys.

    Args:
        added: Converters of keys that were added to the schema later, and may be missing.
        **converters: Converters of the required keys.

    Returns:
        A converter that returns the converted values by key.
    """

    def converted(value: Any) -> dict[str, Any]:
        require(isinstance(value, dict), "an object", value)
        missing = [key for key in converters if key not in value]
        require(not missing, f"an object with {', '.join(converters)}", value)
        late = {key: convert for key, convert in (added or {}).items() if key in value}
        return {key: convert(value[key]) for key, convert in {**converters, **late}.items()}

    return converted
