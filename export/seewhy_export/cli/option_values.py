"""Values of command-line options: sizes, numbers, seeds and choices."""

from __future__ import annotations

from collections.abc import Sequence

import click

from seewhy.contract.metadata import Preprocessing

IMAGENET = Preprocessing()
"""Preprocessing with the mean and the std of ImageNet."""


def not_empty(_context: click.Context, _option: click.Parameter, text: str) -> str:
    """Return the text if it is not empty."""
    if not text:
        raise click.BadParameter("must not be empty")
    return text


def size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from `512` or `480x640`."""
    if text is None:
        return None
    lengths = text.lower().split("x")
    if len(lengths) > 2 or not all(length.isascii() and length.isdigit() and len(length) < 7 for length in lengths):
        raise click.BadParameter(f"must be a side such as 512, or height x width such as 480x640, not {text!r}")
    height, width = int(lengths[0]), int(lengths[-1])
    if height == 0 or width == 0:
        raise click.BadParameter(f"height and width must be at least 1 pixel, not {text!r}")
    return height, width


def numbers(_context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers in `0.5`, in one number per channel such as `0.485,0.456,0.406`, or those of `imagenet`."""
    if text is None:
        return None
    if text.lower() == "imagenet":
        return IMAGENET.mean if option.name == "mean" else IMAGENET.std
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"must be one number, one number per channel separated by commas, or imagenet, not {text!r}"
        ) from None


def seed(_context: click.Context, _option: click.Parameter, value: int) -> int:
    """Return the seed if `torch.manual_seed` accepts it."""
    if not -(2**63) <= value < 2**64:
        raise click.BadParameter(f"must be from -2**63 to 2**64 - 1, not {value}")
    return value


def choice(values: Sequence[str]) -> click.Choice[str]:
    """Return the type of an option that takes one of these values in any case."""
    return click.Choice(values, case_sensitive=False)
