"""Checks of arguments: each returns the value in its plain type, or raises an `ArgumentError` that names it."""

from __future__ import annotations

import os
from collections.abc import Collection
from numbers import Integral
from typing import Any

from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError


def is_integer(value: Any) -> bool:
    """Return True if `value` is a Python or NumPy integer, but not a bool."""
    # Checking the type first avoids the slow check for an abstract class.
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def positive_integer(name: str, value: Any) -> int:
    """Return a positive integer."""
    if not is_integer(value) or value < 1:
        raise ArgumentError(f"{name} must be a positive integer, not {brief(value)}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return True or False; NumPy's booleans are taken, too."""
    # By name, because the command line imports this module for its help, and NumPy takes a while to import.
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise ArgumentError(f"{name} must be True or False, not {brief(value)}")
    return bool(value)


def path(name: str, value: Any) -> str:
    """Return a path, given as str or `os.PathLike`."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or "\0" in text:
        raise ArgumentError(f"{name} must be a path (str or Path), not {brief(value)}")
    return text


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return one of some names."""
    if not isinstance(value, str) or value not in allowed:
        raise ArgumentError(
            f"Unknown {name} {brief(value)}; choose one of {', '.join(allowed)}.{did_you_mean(value, allowed)}"
        )
    return value
