"""Common parts of all rules: their values, their result, and the way from maps to attributions.

Every rule takes a dict of values by their names in the file contract, float32 and finite, for a batch of N images, with
the images themselves among them. A ReLU around a whole sum is left to `full_size`, which makes attributions of maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from seewhy._core import upsample
from seewhy._shared.arrays import Floats, first_not_finite
from seewhy.errors import NonFiniteError

Values: TypeAlias = Mapping[str, Floats]

# Values besides the graph's outputs, which methods of many passes make.
ATTRIBUTIONS = "attributions"
"""(N,Cin,H,W): what the method says, ready."""
CHANNEL_WEIGHTS = "channel_weights"
"""(N,C): each channel's weight."""
COMPLETENESS = "completeness"
"""(N,): see `integrated_gradients.py`."""


@dataclass(frozen=True)
class RuleContext:
    """What a rule needs to know besides the values."""

    height: int
    width: int
    threads: int
    """Most threads that a kernel uses; 0 is one per core."""


@dataclass(frozen=True)
class RuleResult:
    """What a rule returns for a batch of N: a map or values, the other being None.

    Raises:
        NonFiniteError: some of it is NaN or infinity.
    """

    maps: Floats | None = None
    """(N,h,w) for CAM methods, before ReLU and upsampling; `full_size` makes attributions of them."""
    attributions: Floats | None = None
    """(N,Cin,H,W) for gradient methods."""

    def __post_init__(self) -> None:
        if any(first_not_finite(part) is not None for part in (self.maps, self.attributions) if part is not None):
            raise NonFiniteError("the values overflow float32; check the model's weights")


def full_size(maps: Floats, rectified: bool, size: RuleContext) -> Floats:
    """(N,h,w) maps -> (N,H,W) attributions: the positive part where the method takes it, upsampled."""
    shown = np.maximum(maps, np.float32(0)) if rectified else maps
    return upsample(shown, size.height, size.width, size.threads)
