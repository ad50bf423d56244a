"""Parts of sentences."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Value = TypeVar("_Value", bound=Hashable)


def listed(names: Sequence[str], word: str = "and") -> str:
    """Return names as `A`, `A and B`, or `A, B and C`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def either(names: Sequence[str]) -> str:
    """Return names as `A`, `A or B`, or `A, B or C`."""
    return listed(names, "or")


def times(ratio: float) -> str:
    """Return a ratio as `1.6 times` or `12 times`."""
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:,.0f} times"


def by_value(pairs: Iterable[tuple[_Item, _Value]]) -> dict[_Value, list[_Item]]:
    """Group items by their value, in the order of the first item with each value."""
    found: dict[_Value, list[_Item]] = {}
    for item, value in pairs:
        found.setdefault(value, []).append(item)
    return found
