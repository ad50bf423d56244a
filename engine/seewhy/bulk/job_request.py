"""Settings of a job, resolved against a model file before the first image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.bulk.settings import Settings
from seewhy.bulk.sheets import has_sheet
from seewhy.contract.constants import PREDICTED
from seewhy.errors import ArgumentError, MethodError, TargetError
from seewhy.explainer.explainer import Explainer
from seewhy.images.preprocessing import require_preprocessing
from seewhy.methods.method import MethodRequest
from seewhy.methods.plugins import load_plugin
from seewhy.storage.format_names import FIGURE_FORMATS, SHARD_FORMATS
from seewhy.storage.image_encoding import Encoding
from seewhy.tables import shard_files
from seewhy.targets.class_targets import TargetRequest, resolve_targets, validate_top
from seewhy.visualization.figure_style import FigureStyle, read_scale


@dataclass(frozen=True)
class JobRequest:
    """Resolved settings: the work to do for every image of a job."""

    explainer: Explainer
    settings: Settings
    methods: tuple[MethodRequest, ...]
    """The methods with their options."""
    targets: tuple[int, ...]
    """Indices of the classes to explain for each image, each once; empty for the predicted class, or with `top`."""
    encoding: Encoding
    """Format and quality of figures."""
    shard_format: str | None
    """Format of the shards; None if each image has files of its own."""
    style: FigureStyle
    """Style of the figures."""
    scale_images: int | None
    """Number of images whose maxima give the scale of the figures; None if it is a number, or each figure's own."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Scale by method, once it is known from the first images."""

    def style_of(self, method: str) -> FigureStyle:
        """Return the style of a method's figures, with its scale."""
        return replace(self.style, scale=self.scales[method]) if method in self.scales else self.style

    @property
    def has_multi_pass(self) -> bool:
        """True if one of the methods is a multi-pass method."""
        return any(one.method.multi_pass is not None for one in self.methods)

    @property
    def explains_several(self) -> bool:
        """True if results have an axis for the classes of each image."""
        return self.settings.top is not None or len(self.targets) > 1

    @property
    def draws_labels(self) -> bool:
        """True if figures or contact sheets show the labels of classes."""
        classes = self.settings.top or len(self.targets) or 1
        sheet = has_sheet(self.settings.sheet, len(self.methods), classes)
        return self.shard_format is None and (sheet or not self.style.plain)

    def batch_targets(self, own: Sequence[int | None]) -> TargetRequest:
        """Return the targets of a batch; `own` holds the target that the list of images gives for each, or None."""
        if self.settings.top is not None:
            return TargetRequest(None, self.settings.top, True)
        if self.explains_several:
            return TargetRequest(np.tile(np.array(self.targets, np.int64), (len(own), 1)), len(self.targets), True)
        common = self.targets[0] if self.targets else PREDICTED
        indices = [common if target is None else target for target in own]
        return TargetRequest(np.array(indices, np.int64)[:, None], 1, False)


def resolve_job(explainer: Explainer, settings: Settings) -> JobRequest:
    """Resolve settings against a model file, so that mistakes are found before the first image is read.

    Args:
        explainer: Explainer of the model file.
        settings: Settings of the job. Their plugins are loaded.

    Returns:
        The work to do for every image.

    Raises:
        ArgumentError: If a setting is not valid, or does not fit another one or the model file.
        ImageError: If the model does not take images, or its file does not record how to preprocess them.
        MissingExtraError: If the format of the shards needs a package that is not installed.
        OutputError: If a plugin cannot be read.
    """
    require_preprocessing(explainer.metadata)
    style = FigureStyle(
        settings.colormap,
        settings.alpha,
        settings.canvas,
        settings.blend,
        settings.gradients,
        settings.gradient_scaling,
        plain=settings.plain,
    )
    scale = read_scale(settings.scale)
    scale_images = scale if isinstance(scale, int) else None
    if scale_images is None:
        style = replace(style, scale=scale)
    for path in settings.plugins:
        load_plugin(path)
    checks.one_of("format", settings.format, (*FIGURE_FORMATS, *SHARD_FORMATS))
    shard_format = settings.format if settings.format in SHARD_FORMATS else None
    if shard_format is not None:
        shard_files.check(shard_format)
        if settings.raw:
            raise ArgumentError(f"raw arrays are written beside figures; {shard_format} shards hold arrays already")
        if settings.quality is not None:
            raise ArgumentError(f"quality is for jpg and webp, not for {shard_format}")
        if scale is not None:
            raise ArgumentError(f"scale is for figures; {shard_format} shards hold the maps themselves")
    elif settings.full_size:
        raise ArgumentError("full-size heatmaps are for shards (npz, parquet); figures always have the full size")
    methods = explainer.resolve_methods(list(settings.methods), settings.options)
    for one in methods:
        if shard_format is not None and not settings.full_size and not one.method.is_map:
            raise MethodError(
                f"{one.name} has no low-resolution map that a shard could hold, but a value for each pixel; store "
                f"full-size heatmaps (--full-size, or full_size=True)"
            )
    targets: tuple[int, ...] = ()
    if settings.targets:
        found = resolve_targets([list(settings.targets)], 1, explainer.metadata.class_count, explainer.labels)
        targets = tuple(dict.fromkeys(found[0].tolist()))
    if settings.top is not None:
        validate_top(settings.top, explainer.metadata.class_count)
        if targets:
            raise TargetError(f"give target or top, not both (target={brief(list(targets))}, top={settings.top})")
    encoding = Encoding(settings.format if shard_format is None else "png", settings.quality)
    return JobRequest(explainer, settings, methods, targets, encoding, shard_format, style, scale_images)
