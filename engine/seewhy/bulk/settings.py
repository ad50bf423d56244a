"""Settings of a job: methods, targets and formats for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import OutputError
from seewhy.storage import image_encoding
from seewhy.visualization.drawing_options import DEFAULT_ALPHA, DEFAULT_CANVAS, DEFAULT_COLORMAP

BATCH_SIZE = 8
"""Images in one run of the graph, where nobody says otherwise.

With one thread a run, 32 took 4 to 9 % less time for each image (ResNet-50, EfficientNet-Lite0) and 2.6 times the
memory.
"""

SHARD_IMAGES = 1000
"""Images in a shard, where nobody says otherwise: what an interrupted run does again at most."""


@dataclass(frozen=True)
class Settings:
    """Settings of a job; see `Explainer.explain` and `Explanation.overlays`."""

    methods: Sequence[str] = ("gradcam",)
    targets: Sequence[int | str] = ()
    """None given: the predicted class. One: that class. Several: each of them."""
    top: int | None = None
    raw: bool = False
    colormap: str = DEFAULT_COLORMAP
    alpha: float = DEFAULT_ALPHA
    canvas: str = DEFAULT_CANVAS
    batch_size: int = BATCH_SIZE
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoding: image_encoding.Encoding = image_encoding.PNG
    """Format and quality of pictures."""
    shards: str | None = None
    """One of `shard_files.FORMATS`: no pictures, but maps in shards of that format."""
    shard_images: int = SHARD_IMAGES
    """Largest number of images in a shard."""
    full_size: bool = False
    """Whether shards hold heatmaps of the input's size instead of small maps."""
    fast_decode: bool = False
    """Whether JPEGs are decoded with less detail; see `preprocessing.load_image`."""

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python numbers, which JSON can hold. `validate_settings` checks their ranges.

        Raises:
            OutputError: If a switch is neither True nor False.
        """
        for name in ("raw", "full_size", "fast_decode"):
            value = getattr(self, name)
            if not isinstance(value, (bool, np.bool_)):
                raise OutputError(f"{name} must be True or False, not {brief(value)}")
            object.__setattr__(self, name, bool(value))
        for name in ("top", "batch_size", "shard_images"):
            if is_integer(getattr(self, name)):
                object.__setattr__(self, name, int(getattr(self, name)))
        if isinstance(self.alpha, Real) and not isinstance(self.alpha, (bool, int, float)):
            object.__setattr__(self, "alpha", float(self.alpha))
