"""Checks of arguments."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def is_integer(value: Any) -> bool:
    """Return whether `value` is a Python or NumPy integer; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
