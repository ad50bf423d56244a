"""Suggestions for mistyped names, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case, or None if none is similar.

    Args:
        name: Name that the user wrote.
        known: Names that are allowed.

    Returns:
        One of `known`, as it is written there. Names count as similar from a difflib ratio of 0.6.
    """
    by_lower_case: dict[str, str] = {}
    for candidate in known:
        by_lower_case.setdefault(candidate.lower(), candidate)
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'NAME'?" with the closest known name, or "" if none is similar.

    The text starts with a space, so that it can follow the first sentence of an error message:
    `f"Unknown method {name!r}.{did_you_mean(name, METHODS)}"`.
    """
    match = closest_name(name, known)
    return "" if match is None else f" Did you mean {match!r}?"
