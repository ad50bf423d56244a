"""Settings of a job: methods, targets and formats for each image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.bulk.job_defaults import BATCH_SIZE, METHODS, SHARD_IMAGES
from seewhy.errors import ArgumentError
from seewhy.visualization.drawing_options import DEFAULT_ALPHA, DEFAULT_CANVAS, DEFAULT_COLORMAP


@dataclass(frozen=True)
class Settings:
    """Settings of a job; see also `Explainer.explain` and `Explanation.overlays`.

    Raises:
        ArgumentError: If a value has the wrong type. `explain_folder` checks the values against the model file.
    """

    methods: Sequence[str] = METHODS
    """Names of the methods, or one name."""
    targets: Sequence[int | str] = ()
    """Class indices or labels to explain for each image, or one of them. None given: the predicted class."""
    top: int | None = None
    """Number of classes with the highest logits to explain, instead of `targets`."""
    raw: bool = False
    """True to write logits, attributions and heatmaps as npz files beside the figures."""
    colormap: str = DEFAULT_COLORMAP
    """Name of the colormap of overlays."""
    alpha: float = DEFAULT_ALPHA
    """Opacity of the heatmap in overlays, from 0 to 1."""
    canvas: str = DEFAULT_CANVAS
    """Image that overlays are drawn on: `model` (the model's view) or `original` (the whole image)."""
    batch_size: int = BATCH_SIZE
    """Maximum number of images in one run of the graph."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options by method and name."""
    format: str = "png"
    """png, jpg or webp: figures, with files for each image. npz or parquet: shards, with the maps of many images."""
    quality: int | None = None
    """Compression quality for jpg and webp, from 1 to 100; None is 90."""
    shard_images: int = SHARD_IMAGES
    """Maximum number of images in a shard."""
    full_size: bool = False
    """True to store heatmaps of the input's size in shards instead of low-resolution maps."""
    fast_decode: bool = False
    """True to decode JPEG files with less detail, which is faster and changes pixels by up to some 30 of 255."""
    plugins: Sequence[str | os.PathLike[str]] = ()
    """Python files that register methods, or one of them; see `seewhy.register_method`."""

    def __post_init__(self) -> None:
        """Make lists of single values, and Python numbers of NumPy numbers, because JSON cannot hold the latter."""
        for name, kinds in (("methods", str), ("targets", (int, str, np.integer)), ("plugins", (str, os.PathLike))):
            value = getattr(self, name)
            values = (value,) if isinstance(value, kinds) else value
            if not isinstance(values, (list, tuple)) or not all(isinstance(one, kinds) for one in values):
                raise ArgumentError(f"{name} must be a list, not {brief(value)}")
            object.__setattr__(self, name, tuple(dict.fromkeys(values)))
        for name in ("raw", "full_size", "fast_decode"):
            object.__setattr__(self, name, checks.flag(name, getattr(self, name)))
        for name in ("top", "batch_size", "shard_images", "quality"):
            if checks.is_integer(getattr(self, name)):
                object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("batch_size", "shard_images"):
            checks.positive_integer(name, getattr(self, name))
        if isinstance(self.alpha, Real) and not isinstance(self.alpha, (bool, int, float)):
            object.__setattr__(self, "alpha", float(self.alpha))
