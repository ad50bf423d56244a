"""Options of the built-in methods. This module imports no NumPy, so that the command line can list them quickly."""

from __future__ import annotations

from seewhy.methods.options import Option, choice, integer, number

BASELINES: dict[str, float | None] = {"zero": None, "black": 0.0, "grey": 0.5, "white": 1.0}
"""Baseline of integrated gradients -> pixel value before normalization; None is zero after normalization."""

QUADRATURES = ("gauss-legendre", "midpoint")
"""Quadrature rules of integrated gradients."""

BUILT_IN_OPTIONS: dict[str, tuple[Option, ...]] = {
    "smoothgrad": (
        Option("samples", 25, integer(1, 100_000), "Number of noisy copies of each image."),
        Option("noise", 0.15, number(0, 1), "Standard deviation of the noise, as a share of the image's value range."),
        Option("seed", 0, integer(0, 2**63 - 1), "Seed of the noise."),
    ),
    "integrated-gradients": (
        Option("steps", 50, integer(1, 1000), "Number of points between baseline and image."),
        Option("baseline", "zero", choice(BASELINES), "Baseline: zero (in normalized pixels), black, grey or white."),
        Option("rule", "gauss-legendre", choice(QUADRATURES), "Quadrature rule: gauss-legendre or midpoint."),
    ),
}
"""Name of a method -> its options."""
