"""Metadata of a quantised model file: how its backbone was quantised, and how far its results drift.

A file of 8-bit weights and activations is made from a float32 file, and its metadata says what that costs.
`docs/concepts/file-format.md` describes the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seewhy.contract.json_values import (
    count,
    fields,
    first_repeated,
    number,
    one_of,
    optional,
    positive,
    require,
    sha256_digits,
    text,
    tuple_of,
)

WEIGHT_TYPES = ("int8",)
ACTIVATION_TYPES = ("uint8",)

CONFIDENT = 0.3
"""Probability of the class that the float32 file predicts, above which its agreement counts as confident."""


@dataclass(frozen=True)
class Speed:
    """Time of Grad-CAM with the float32 file and with the quantised file, measured in turns."""

    batch_size: int
    """Number of images in one run."""
    float32_ms: float
    """Median time of the float32 file, in milliseconds for each image."""
    int8_ms: float
    """Median time of the quantised file, in milliseconds for each image."""


@dataclass(frozen=True)
class Drift:
    """Difference between a quantised file and its float32 file, on images that calibration did not use.

    The maps are low-resolution Grad-CAM maps after ReLU, both for the class that the float32 file predicts. An image
    whose map is constant in the float32 file has no correlation, and is counted apart. A map that is constant in the
    quantised file alone has the correlation 0.
    """

    images: int
    """Number of images."""
    constant_maps: int
    """Number of images whose map is constant in the float32 file."""
    correlation_median: float | None
    """Median of Pearson's correlation of the two maps, or None if every image has a constant map."""
    correlation_p5: float | None
    """5th percentile of the correlation, or None."""
    correlation_worst: float | None
    """Smallest correlation, or None."""
    top1_agreement: float
    """Share of images for which both files predict the same class."""
    confident_images: int
    """Number of images for which float32's probability of its predicted class exceeds `CONFIDENT`."""
    top1_agreement_confident: float | None
    """Share of these images for which both files predict the same class, or None if there are none."""
    logits_error: float
    """Relative L2 error of all logits: the norm of the difference divided by the norm of float32's logits."""
    speed: tuple[Speed, ...] = ()
    """Speed by batch size; empty if it was not measured."""
    threads: int | None = None
    """Number of threads of the speed measurement."""
    cpu_flags: tuple[str, ...] | None = None
    """Instruction sets of the CPU that affect the speed, such as `avx512_vnni`; None if they are not known."""

    @property
    def value(self) -> float | None:
        """Drift as one number: 1 minus the 5th percentile of the correlation, or None if there is no correlation."""
        return None if self.correlation_p5 is None else 1 - self.correlation_p5


@dataclass(frozen=True)
class Trade:
    """Drift and speed of one choice of layers that stay in float32."""

    kept_float: int
    """Number of layers of the backbone that stay in float32."""
    correlation_median: float | None
    """Median correlation of the maps, or None if every image has a constant map."""
    correlation_p5: float | None
    """5th percentile of the correlation, or None."""
    speedup: float | None
    """Float32's time of Grad-CAM for one image divided by the file's, measured in turns; None if not measured."""


@dataclass(frozen=True)
class Quantization:
    """Origin and precision of a quantised file."""

    float32_file: str
    """Name of the float32 file."""
    float32_sha256: str
    """SHA-256 of the float32 file's bytes."""
    weight_type: str
    """Type of the quantised weights: `int8`, symmetric and per output channel."""
    activation_type: str
    """Type of the quantised activations: `uint8`."""
    calibration: str
    """Rules for weights and for ranges of activations, such as `weights by GPTQ, ranges by minmax`."""
    calibration_images: int
    """Number of images that the ranges were measured on."""
    int8_layers: int
    """Number of layers (convolutions and matrix products) that run in 8 bits."""
    kept_float: tuple[str, ...]
    """Names of the layers of the backbone that stay in float32."""
    drift: Drift
    """Measured difference from the float32 file."""
    trades: tuple[Trade, ...] = field(default=(), repr=False)
    """Choices of layers in float32 that were measured; empty if the choice was given."""


def _number_between(low: float, high: float = math.inf) -> Callable[[Any], float]:
    """Return a converter of numbers from `low` to `high`."""
    allowed = f"a number of at least {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"

    def convert(value: Any) -> float:
        converted = number(value)
        require(low <= converted <= high, allowed, value)
        return converted

    return convert


def _positive(value: Any) -> float:
    """Return a positive number."""
    converted = number(value)
    require(converted > 0, "a positive number", value)
    return converted


_share = _number_between(0, 1)
_correlation = optional(_number_between(-1, 1))


def _speed(value: Any) -> Speed:
    return Speed(**fields(batch_size=positive, float32_ms=_positive, int8_ms=_positive)(value))


def _drift(value: Any) -> Drift:
    drift = Drift(
        **fields(
            images=positive,
            constant_maps=count,
            correlation_median=_correlation,
            correlation_p5=_correlation,
            correlation_worst=_correlation,
            top1_agreement=_share,
            confident_images=count,
            top1_agreement_confident=optional(_share),
            logits_error=_number_between(0),
            speed=tuple_of(_speed),
            threads=optional(positive),
            cpu_flags=optional(tuple_of(text)),
        )(value)
    )
    require(drift.constant_maps <= drift.images, "at most as many constant maps as images", value["constant_maps"])
    require(
        drift.confident_images <= drift.images, "at most as many confident images as images", value["confident_images"]
    )
    correlations = (drift.correlation_worst, drift.correlation_p5, drift.correlation_median)
    if drift.constant_maps == drift.images:
        require(all(one is None for one in correlations), "no correlations of constant maps", list(correlations))
    else:
        known = [one for one in correlations if one is not None]
        require(
            len(known) == len(correlations) and known == sorted(known),
            "correlations in the order worst, 5th percentile, median",
            list(correlations),
        )
    require(
        (drift.top1_agreement_confident is None) == (drift.confident_images == 0),
        "an agreement of confident images exactly if there are some",
        value["top1_agreement_confident"],
    )
    return drift


def _trade(value: Any) -> Trade:
    return Trade(
        **fields(
            kept_float=count,
            correlation_median=_correlation,
            correlation_p5=_correlation,
            speedup=optional(_positive),
        )(value)
    )


def quantization(value: Any) -> Quantization:
    """Convert the value of `seewhy.quantization`.

    Args:
        value: Decoded JSON value.

    Returns:
        The quantisation.

    Raises:
        ValueError: If a field is missing or not valid.
    """
    converted = Quantization(
        **fields(
            float32_file=text,
            float32_sha256=sha256_digits,
            weight_type=one_of(WEIGHT_TYPES),
            activation_type=one_of(ACTIVATION_TYPES),
            calibration=text,
            calibration_images=positive,
            int8_layers=positive,
            kept_float=tuple_of(text),
            drift=_drift,
            trades=tuple_of(_trade),
        )(value)
    )
    repeated = first_repeated(converted.kept_float)
    require(repeated is None, "each layer once in kept_float", repeated)
    return converted
