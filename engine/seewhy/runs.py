"""Runs of one model file's graph, with every number that comes out of it looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .contract import ACTIVATIONS
from .errors import OutputError
from .model import ModelFile
from .sessions import Outputs, Sessions

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Runs a model file's graph, for any of its outputs. May be shared by threads."""

    model: ModelFile
    sessions: Sessions

    def __call__(self, outputs: frozenset[str], feeds: Mapping[str, NDArray[Any]], images: Integers) -> Outputs:
        """Return `outputs` for `feeds`, as `Sessions.run` does; `images` (N,) says which image a row belongs to.

        Raises:
            OutputError: an output holds NaN or infinity.
        """
        values = self.sessions.run(outputs, feeds)
        for name, value in values.items():
            row = first_not_finite(value)
            if row is not None:
                raise OutputError(
                    f"{self.model.path}: {name} of image {images[row]} holds NaN or infinity, so there is nothing to "
                    f"show; check the model's weights and preprocessing"
                )
        return values


def why_repeated(model: ModelFile) -> str | None:
    """Why the graph cannot start at the target layer, in words that follow "since"; None where it can."""
    layer = model.metadata.layer
    if layer is None or ACTIVATIONS not in model.outputs:
        return "the file holds no activations to start from"
    if not layer.separates or layer.cut is None:
        return f"not every path from the image to the logits passes through {layer.name}"
    if layer.cut != ACTIVATIONS:
        return f"the graph could only be cut at {layer.cut}, which is not an output"
    return None


def first_not_finite(values: Floats) -> int | None:
    """The first row of `values` that holds NaN or infinity."""
    # NaN and infinity survive a sum, and one sum is much cheaper than a look at each element.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return None
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    return int(bad[0]) if bad.size else None
