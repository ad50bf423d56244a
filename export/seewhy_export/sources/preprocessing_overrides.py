"""Preprocessing options of the user, which override those of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from seewhy.contract.metadata import Preprocessing, check_preprocessing
from seewhy.errors import ExportError
from seewhy_export.sources.source import Source

DEFAULT = Preprocessing(resize="squash", size=None, interpolation="bilinear", crop=False, channel_order="RGB")
"""What holds where neither the source nor the user says otherwise; mean and std have to be said."""


@dataclass(frozen=True)
class Overrides:
    """Each field is one of the file contract's, or None to keep the source's."""

    resize: str | None = None
    size: int | None = None
    interpolation: str | None = None
    crop: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: str | None = None

    @property
    def given(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


def with_overrides(source: Source, size: tuple[int, int] | None, overrides: Overrides) -> Source:
    """The source for another input size and with the preprocessing that the user asks for.

    Another input size alone keeps the share of the picture that a centre crop shows.

    Args:
        size: (H, W) in pixels in place of the source's own; None keeps it.

    Raises:
        ExportError: a value is wrong, or mean and std are missing.
    """
    preprocessing = source.preprocessing
    if preprocessing is not None and preprocessing.size is not None and size is not None:
        scaled = round(preprocessing.size * min(size) / min(source.image_size))
        preprocessing = replace(preprocessing, size=scaled)
    source = replace(source, image_size=size or source.image_size)
    if overrides.given:
        preprocessing = _overridden(preprocessing, overrides, source)
    return replace(source, preprocessing=preprocessing)


def _overridden(own: Preprocessing | None, overrides: Overrides, source: Source) -> Preprocessing:
    if own is None and (overrides.mean is None or overrides.std is None):
        raise ExportError(
            "the source does not say how pixels are normalised; give --mean and --std with the other preprocessing "
            "flags (--mean 0 --std 1 for plain pixels from 0 to 1)"
        )
    base = own or DEFAULT
    channels = _channels(source, own, overrides)
    result = replace(
        base,
        interpolation=overrides.interpolation or base.interpolation,
        mean=base.mean if overrides.mean is None else _checked("--mean", overrides.mean, channels, lowest=-1.0),
        std=base.std if overrides.std is None else _checked("--std", overrides.std, channels, lowest=1e-6),
        channel_order=overrides.channel_order or base.channel_order,
        **_resizing(base, overrides, source.image_size),
    )
    try:
        check_preprocessing(result)
    except ValueError as error:
        raise ExportError(f"the preprocessing is not valid: {error}") from error
    return result


def _channels(source: Source, own: Preprocessing | None, overrides: Overrides) -> int:
    """How many channels one value for mean or std stands for."""
    if source.channels is not None:
        return source.channels
    if own is not None:
        return len(own.mean)
    written = max(len(values or ()) for values in (overrides.mean, overrides.std))
    if written > 1:
        return written
    first = next((module for module in source.module.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _checked(flag: str, values: Sequence[float], channels: int, lowest: float) -> tuple[float, ...]:
    written = ",".join(f"{value:g}" for value in values)
    if len(values) not in (1, channels):
        raise ExportError(f"{flag} {written}: {len(values)} values for {channels} channels; give one, or one a channel")
    if not all(lowest <= value <= 1 for value in values):
        raise ExportError(
            f"{flag} {written}: must be from {lowest:g} to 1, since it applies to pixels from 0 to 1; divide values "
            f"for pixels from 0 to 255 by 255"
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels


def _resizing(base: Preprocessing, overrides: Overrides, image_size: tuple[int, int]) -> dict[str, Any]:
    """`resize`, `size` and `crop`: those of a mode belong together."""
    mode = overrides.resize or base.resize
    same = mode == base.resize
    crop = overrides.crop if overrides.crop is not None else base.crop if same else mode == "shorter-side"
    if mode != "shorter-side":
        if overrides.size is not None:
            raise ExportError(f"--resize-size {overrides.size}: only --resize shorter-side has a size, not {mode}")
        return {"resize": mode, "size": None, "crop": crop}
    size = overrides.size or (base.size if same else None) or min(image_size)
    return {"resize": mode, "size": size, "crop": crop}
