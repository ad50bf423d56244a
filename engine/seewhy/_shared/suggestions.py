"""Suggestions for mistyped names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None if none is similar.

    Case, hyphens, underscores and spaces do not count: `Grad-CAM` is as similar to `gradcam` as can be.

    Args:
        name: Name that the user wrote.
        known: Names that are allowed.

    Returns:
        One of `known`, as it is written there. Names count as similar from a difflib ratio of 0.6.
    """
    import difflib  # only for messages of errors

    by_plain_name: dict[str, str] = {}
    for candidate in known:
        by_plain_name.setdefault(_plain(candidate), candidate)
    matches = difflib.get_close_matches(_plain(name), by_plain_name, n=1, cutoff=0.6)
    return by_plain_name[matches[0]] if matches else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " Did you mean 'NAME'?" with the closest known name, or "" if none is similar.

    The text starts with a space, so that it can follow the first sentence of an error message:
    `f"Unknown method {name!r}.{did_you_mean(name, METHODS)}"`.
    """
    match = closest_name(name, known) if isinstance(name, str) else None
    return "" if match is None else f" Did you mean {match!r}?"


def did_you_mean_one_of(names: Iterable[str]) -> str:
    """Return " Did you mean 'A', 'B' or 'C'?" with these names, or "" if there are none."""
    *first, last = [repr(name) for name in names] or [""]
    listed = f"{', '.join(first)} or {last}" if first else last
    return f" Did you mean {listed}?" if last else ""


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in "-_ ")
