"""Preprocessing values from the user, which replace those of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from seewhy.contract.metadata import Preprocessing, check_preprocessing
from seewhy.errors import ExportArgumentError
from seewhy_export.sources.image_channels import find_channels
from seewhy_export.sources.source import Source

DEFAULT = Preprocessing(resize="squash", size=None, interpolation="bilinear", crop=False, channel_order="RGB")
"""Values that neither the source nor the user defines. Mean and std have no default: one of them must define both."""


UNDEFINED = (
    "the source does not define how pixels are normalised; give --mean and --std as in training (--mean imagenet for "
    "the values of ImageNet, --mean 0 --std 1 for plain pixels from 0 to 1), or --no-preprocessing for a file that "
    "explains only arrays that are already preprocessed"
)
"""Error message for a source without mean and std."""

_ASSUMED = "the source does not define resizing, so squash to the input size is assumed; set another mode with --resize"


@dataclass(frozen=True)
class PreprocessingOverrides:
    """Values of the file contract's preprocessing. None keeps the value of the source."""

    resize: str | None = None
    size: int | None = None
    interpolation: str | None = None
    crop: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: str | None = None

    @property
    def any_given(self) -> bool:
        """True if the user gives at least one value."""
        return any(getattr(self, field.name) is not None for field in fields(self))


def with_overrides(source: Source, image_size: tuple[int, int] | None, overrides: PreprocessingOverrides) -> Source:
    """Return the source with another input size and with the user's preprocessing.

    A change of the input size alone keeps the share of the image that a centre crop shows.

    Args:
        source: Loaded source.
        image_size: (H, W) of the input in pixels. None keeps the size of the source.
        overrides: Values that replace those of the source.

    Returns:
        The changed source.

    Raises:
        ExportError: If a value is out of range, or neither the user nor the source defines mean and std.
    """
    preprocessing = source.preprocessing
    if preprocessing is not None and preprocessing.size is not None and image_size is not None:
        scaled = round(preprocessing.size * min(image_size) / min(source.image_size))
        preprocessing = replace(preprocessing, size=scaled)
    source = replace(source, image_size=image_size or source.image_size)
    if overrides.any_given:
        if preprocessing is None and overrides.resize is None:
            source = replace(source, notes=(*source.notes, _ASSUMED))
        preprocessing = _overridden(preprocessing, overrides, source)
    return replace(source, preprocessing=preprocessing)


def _overridden(own: Preprocessing | None, overrides: PreprocessingOverrides, source: Source) -> Preprocessing:
    """Return the preprocessing of a source with the user's values in place of its own."""
    if own is None and (overrides.mean is None or overrides.std is None):
        raise ExportArgumentError(UNDEFINED)
    base = own or DEFAULT
    channels = _channels(source, own, overrides)
    result = replace(
        base,
        interpolation=overrides.interpolation or base.interpolation,
        mean=base.mean if overrides.mean is None else _per_channel("--mean", overrides.mean, channels, lowest=-1.0),
        std=base.std if overrides.std is None else _per_channel("--std", overrides.std, channels, lowest=1e-6),
        channel_order=overrides.channel_order or base.channel_order,
        **_resizing(base, overrides, source.image_size),
    )
    try:
        check_preprocessing(result)
    except ValueError as error:
        raise ExportArgumentError(f"the preprocessing is not valid: {error}") from error
    return result


def _channels(source: Source, own: Preprocessing | None, overrides: PreprocessingOverrides) -> int:
    """Return the number of channels, to which a single value for mean or std applies."""
    if source.channels is not None:
        return source.channels
    if own is not None:
        return len(own.mean)
    count = max(len(values or ()) for values in (overrides.mean, overrides.std))
    if count > 1:
        return count
    return find_channels(source.module, source.image_size)


def _per_channel(flag: str, values: Sequence[float], channels: int, lowest: float) -> tuple[float, ...]:
    """Return one value per channel, after checking the number of values and their range."""
    written = ",".join(f"{value:g}" for value in values)
    if len(values) not in (1, channels):
        raise ExportArgumentError(
            f"{flag} {written}: {len(values)} values for {channels} channels; give one, or one per channel"
        )
    if not all(lowest <= value <= 1 for value in values):
        raise ExportArgumentError(
            f"{flag} {written}: must be between {lowest:g} and 1 because pixels range from 0 to 1; divide values for "
            f"pixels from 0 to 255 by 255"
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels


def _resizing(base: Preprocessing, overrides: PreprocessingOverrides, image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the values of `resize`, `size` and `crop`, which depend on each other."""
    mode = overrides.resize or base.resize
    unchanged = mode == base.resize
    size = overrides.size or (base.size if unchanged else None)
    if overrides.size is not None and (mode == "none" or (overrides.resize is None and base.size is None)):
        raise ExportArgumentError(f"--resize-size {size} requires --resize shorter-side or --resize squash")
    if mode == "shorter-side":
        size = size or min(image_size)
    crop = base.crop if unchanged and size == base.size else size is not None
    return {"resize": mode, "size": size, "crop": crop if overrides.crop is None else overrides.crop}
