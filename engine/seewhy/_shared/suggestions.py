"""Suggestions for names that a user mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 3
"""Largest number of names in one suggestion."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?` with the known names closest to `name`, or an empty text if none is close.

    Case, hyphens, spaces and other punctuation do not count: `Grad-CAM` is as close to `gradcam` as can be.
    """
    if not isinstance(name, str):
        return ""
    plain: dict[str, str] = {}
    for each in known:
        plain.setdefault(_plain(each), each)
    return suggest(plain[key] for key in difflib.get_close_matches(_plain(name), plain, n=_MOST, cutoff=0.7))


def suggest(names: Iterable[str]) -> str:
    """Return ` Did you mean 'a', 'b' or 'c'?` for these names, or an empty text if there are none."""
    *first, last = [repr(name) for name in names] or [""]
    listed = f"{', '.join(first)} or {last}" if first else last
    return f" Did you mean {listed}?" if last else ""


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum() or c == "+")
