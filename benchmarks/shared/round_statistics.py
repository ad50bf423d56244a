"""Medians, spreads and ratios of rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the closest two; `share` from 0 to 1.

    Raises:
        ValueError: there are no values, or `share` is outside [0,1].
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"percentile {share} of {len(values)} values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summary(rounds: Sequence[float]) -> dict[str, float]:
    """Median and spread."""
    return {
        "median": statistics.median(rounds),
        "p10": percentile(rounds, 0.1),
        "p90": percentile(rounds, 0.9),
    }


def ratios(rounds: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round one's time divided by the other's: what slows down a round slows down both.

    Raises:
        ValueError: they did not take part in the same rounds.
    """
    if len(rounds) != len(others) or not rounds:
        raise ValueError(f"{len(rounds)} rounds against {len(others)}")
    return [one / other for one, other in zip(rounds, others, strict=True)]


def ratio(rounds: Sequence[float], others: Sequence[float]) -> float:
    """The median of `ratios`."""
    return statistics.median(ratios(rounds, others))


def repeats(seconds: float, enough: float = 0.1, most: int = 200) -> int:
    """How many calls to time in one measurement, so that it lasts long enough for the clock to be exact."""
    return max(1, min(most, math.ceil(enough / max(seconds, 1e-6)))) if seconds < enough / 2 else 1


def order(names: Sequence[str], turn: int) -> list[str]:
    """The names in an order that changes with each round, so that none always follows the same other."""
    start = turn % len(names)
    turned = [*names[start:], *names[:start]]
    return turned[::-1] if turn % 2 else turned
