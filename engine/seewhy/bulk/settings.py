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
from seewhy.bulk.job_defaults import BATCH_SIZE, METHODS, SHARD_IMAGES, SHEET_METHODS
from seewhy.errors import ArgumentError
from seewhy.visualization import drawing_options as drawing


@dataclass(frozen=True)
class Settings:
    """Settings of a job; see also `Explainer.explain` and `Explanation.overlays`.

    Raises:
        ArgumentError: If a value has the wrong type. `explain_folder` checks the values against the model file.
    """

    methods: Sequence[str] = ()
    """Names of the methods, or one name. None given: `gradcam`, or what the sheet shows."""
    targets: Sequence[int | str] = ()
    """Class indices or labels to explain for each image, or one of them. None given: the predicted class."""
    top: int | None = None
    """Number of classes with the highest logits to explain, instead of `targets`."""
    raw: bool = False
    """True to write logits, attributions and heatmaps as npz files beside the figures."""
    colormap: str = drawing.DEFAULT_COLORMAP
    """Name of the colormap of overlays."""
    alpha: float | None = None
    """Opacity of the heatmap in overlays, from 0 to 1; None is the default of the blend."""
    canvas: str = drawing.DEFAULT_CANVAS
    """Image that overlays are drawn on: `model` (the model's view) or `original` (the whole image)."""
    blend: str = drawing.DEFAULT_BLEND
    """Opacity of overlays: `constant`, or `heat` for one that follows the heat."""
    gradients: str = drawing.DEFAULT_GRADIENT_STYLE
    """Figures of gradient methods: `rgb` (signed values), `heatmap` or `overlay`."""
    gradient_scaling: str = drawing.DEFAULT_GRADIENT_SCALING
    """Scaling of these figures: `robust` (clipped and symmetric about 0) or `minmax`."""
    scale: float | str | None = None
    """Value of the hottest colour in all figures, or `first:N` for the maximum of the first N images, by method."""
    plain: bool = False
    """True for figures without captions."""
    sheet: str = drawing.DEFAULT_SHEET
    """Contact sheets: `auto` (for several methods or classes), `always`, `side-by-side` (one row) or `never`."""
    batch_size: int = BATCH_SIZE
    """Maximum number of images in one run of the graph."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options by method and name."""
    format: str = "png"
    """png, jpg, webp or svg: figures, with files for each image. npz or parquet: shards, with maps of many images."""
    quality: int | None = None
    """Compression quality for jpg and webp, from 1 to 100; None is 90."""
    shard_images: int = SHARD_IMAGES
    """Maximum number of images in a shard."""
    full_size: bool = False
    """True to store heatmaps of the input's size in shards instead of low-resolution maps."""
    fast_decode: bool = False
    """True to decode JPEG files with less detail, which is faster and changes pixels by up to some 30 of 255."""
    plugins: Sequence[str | os.PathLike[str]] = ()
    """Python files that register methods or metrics, or one of them; see `seewhy.register_method`."""

    def __post_init__(self) -> None:
        """Make lists of single values, and Python numbers of NumPy numbers, because JSON cannot hold the latter."""
        for name, kinds in (("methods", str), ("targets", (int, str, np.integer)), ("plugins", (str, os.PathLike))):
            value = getattr(self, name)
            values = (value,) if isinstance(value, kinds) else value
            if not isinstance(values, (list, tuple)) or not all(isinstance(one, kinds) for one in values):
                raise ArgumentError(f"{name} must be a list, not {brief(value)}")
            object.__setattr__(self, name, tuple(dict.fromkeys(values)))
        checks.one_of("sheet", self.sheet, drawing.SHEETS)
        if not self.methods:
            object.__setattr__(self, "methods", SHEET_METHODS.get(self.sheet, METHODS))
        for name in ("raw", "full_size", "fast_decode", "plain"):
            object.__setattr__(self, name, checks.flag(name, getattr(self, name)))
        for name in ("top", "batch_size", "shard_images", "quality"):
            if checks.is_integer(getattr(self, name)):
                object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("batch_size", "shard_images"):
            checks.positive_integer(name, getattr(self, name))
        for name in ("alpha", "scale"):
            value = getattr(self, name)
            if isinstance(value, Real) and not isinstance(value, (bool, int, float)):
                object.__setattr__(self, name, float(value))
