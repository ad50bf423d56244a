"""Types of the arguments and results of rules.

A rule combines the outputs of the graph into attributions. It receives the values for a batch of N images as a mapping
from their names in the file contract to float32 arrays that are finite. The preprocessed images are among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from seewhy._core import upsample
from seewhy._shared.arrays import Floats, is_finite
from seewhy.errors import NonFiniteError

Values: TypeAlias = Mapping[str, Floats]
"""Arrays by name: `images` (N,Cin,H,W), `logits` (N,classes), and the outputs that the method names."""

# Values that multi-pass methods add to the outputs of the graph.
ATTRIBUTIONS = "attributions"
"""Finished attributions of shape (N,Cin,H,W)."""
CHANNEL_WEIGHTS = "channel_weights"
"""Weight of each channel, of shape (N,C)."""
COMPLETENESS = "completeness"
"""Completeness error of shape (N,); see `integrated_gradients.py`."""


@dataclass(frozen=True)
class RuleContext:
    """Information for a rule besides the values."""

    height: int
    """Height of the model's input, in pixels."""
    width: int
    """Width of the model's input, in pixels."""
    threads: int
    """Maximum number of threads for one kernel call; 0 is one thread for each core."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's options with their values."""


Rule: TypeAlias = Callable[[Values, RuleContext], Floats]
"""Combines values into one float32 array: maps (N,h,w) for a map method, else attributions (N,Cin,H,W).

Several threads call a rule at the same time, each with other images of a batch.
"""


def require_finite(result: Floats, method: str) -> None:
    """Raise a NonFiniteError that names the method if a result holds NaN or infinity."""
    if not is_finite(result):
        raise NonFiniteError(
            f"{method}: the result holds NaN or infinity, because values overflow float32 or the rule divides by zero; "
            f"check the model's weights"
        )


def full_size(maps: Floats, rectified: bool, context: RuleContext) -> Floats:
    """Upsample maps to the size of the model's input.

    Args:
        maps: Maps before ReLU, float32 of shape (N, h, w).
        rectified: Whether negative values become 0 first.
        context: Holds the size of the input.

    Returns:
        Attributions, float32 of shape (N, H, W).
    """
    shown = np.maximum(maps, np.float32(0)) if rectified else maps
    return upsample(shown, context.height, context.width, context.threads)
