"""Checks of arguments."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_integer(value: Any) -> bool:
    """Return whether `value` is a Python or NumPy integer; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
