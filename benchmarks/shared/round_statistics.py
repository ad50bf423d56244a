"""Medians, percentiles and ratios of the times of rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile with linear interpolation between the two nearest values; `share` is between 0 and 1.

    Raises:
        ValueError: If there are no values or `share` is not between 0 and 1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"percentile {share} of {len(values)} values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def summary(rounds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 10th and 90th percentile."""
    return {
        "median": statistics.median(rounds),
        "p10": percentile(rounds, 0.1),
        "p90": percentile(rounds, 0.9),
    }


def ratios(rounds: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return `rounds[i] / others[i]` for every round. A disturbance of a round affects both times alike.

    Raises:
        ValueError: If the numbers of rounds differ or are zero.
    """
    if len(rounds) != len(others) or not rounds:
        raise ValueError(f"{len(rounds)} rounds against {len(others)}")
    return [one / other for one, other in zip(rounds, others, strict=True)]


def ratio(rounds: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of `ratios`."""
    return statistics.median(ratios(rounds, others))


def repeats(seconds: float, enough: float = 0.1, most: int = 200) -> int:
    """Return the number of calls per measurement, so that a measurement takes about `enough` seconds."""
    return max(1, min(most, math.ceil(enough / max(seconds, 1e-6)))) if seconds < enough / 2 else 1


def order(names: Sequence[str], turn: int) -> list[str]:
    """Return the names in an order that changes with each round, so that no name always follows the same name."""
    start = turn % len(names)
    rotated = [*names[start:], *names[:start]]
    return rotated[::-1] if turn % 2 else rotated
