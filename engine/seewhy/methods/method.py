"""Methods: the outputs of the graph that they need, and the rules that combine these outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seewhy._core import max_abs, minmax
from seewhy._shared.arrays import Floats
from seewhy._shared.text import first_line
from seewhy.contract.constants import IMAGES
from seewhy.errors import MethodError, SeewhyError
from seewhy.methods.base import Rule, RuleContext, Values, require_finite
from seewhy.methods.multi_pass import MultiPass
from seewhy.methods.options import Option

REDUCTIONS = ("sum", "max-abs")
"""Reductions of attributions to one value a pixel."""


@dataclass(frozen=True, eq=False)
class Method:
    """A method that explains decisions, built in or registered by a user."""

    name: str
    """Name in Python and on the command line: lower-case letters, digits, `+` and `-`."""
    title: str
    """Name in figures."""
    outputs: tuple[str, ...]
    """Outputs of the graph that the rule reads besides `images` and `logits`."""
    is_map: bool
    """True if the rule returns one low-resolution map for each image, which is drawn as an overlay. Otherwise it
    returns one value for each pixel and channel, and these are drawn as an RGB image."""
    rule: Rule = field(repr=False)
    """Function that combines the values into one float32 array; see `seewhy.methods.base.Rule`."""
    reference: str = ""
    """Paper and equation."""
    multi_pass: MultiPass | None = field(default=None, repr=False)
    """Further runs of the graph; None for methods of a single run."""
    rectified: bool = True
    """True if only the positive part of a map is shown."""
    options: tuple[Option, ...] = ()
    """Options that a user can set."""
    reduction: str = "sum"
    """Reduction of attributions (Cin, H, W) to one value a pixel when they are measured: `sum` for values that add up
    to a score, or `max-abs`, the maximum of |value| over the channels, for sensitivities. Heatmaps always show
    `max-abs`."""

    optional_outputs: tuple[str, ...] = ()
    """Outputs that spare the method work if the file holds them."""

    @property
    def all_outputs(self) -> tuple[str, ...]:
        """Outputs of the graph that the method uses if the file holds them."""
        return (*self.outputs, *self.optional_outputs)

    def heatmaps(self, attributions: Floats, context: RuleContext) -> Floats:
        """Return heatmaps in [0, 1], float32 of shape (N, H, W), for attributions of shape (N, H, W) or (N, Cin, H, W).

        Attributions of a gradient method are first reduced to the maximum of |value| over the channels.
        """
        strength = attributions if self.is_map else max_abs(attributions, context.threads)
        return minmax(strength, context.threads)


@dataclass(frozen=True)
class MethodRequest:
    """A method with a value for each of its options."""

    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the options by name."""

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.method.name


def apply_rule(request: MethodRequest, values: Values, context: RuleContext) -> Floats:
    """Run a method's rule and validate the array that it returns.

    The rule gets read-only arrays, because other methods of the same call read the same values.

    Args:
        request: The method and its options.
        values: Values for N images by name, including `images`.
        context: Size of the input and number of threads; the options are filled in here.

    Returns:
        Maps, float32 of shape (N, h, w), if the method is a map method; attributions of shape (N, Cin, H, W) otherwise.

    Raises:
        MethodError: If the rule fails, or returns something other than a float32 array of that shape.
        NonFiniteError: If the array holds NaN or infinity.
    """
    method = request.method
    frozen = {name: _read_only(value) for name, value in values.items()}
    try:
        result = method.rule(frozen, replace(context, options=request.options) if request.options else context)
    except (SeewhyError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MethodError(f"the rule of method {method.name} failed with {reason}") from error
    expected = f"(N,h,w) with N = {len(values[IMAGES])}" if method.is_map else str(values[IMAGES].shape)
    if not isinstance(result, np.ndarray) or result.dtype != np.float32:
        found = f"one of {result.dtype}" if isinstance(result, np.ndarray) else type(result).__name__
        raise MethodError(f"the rule of method {method.name} must return a float32 array {expected}, not {found}")
    if method.is_map:
        fits = result.ndim == 3 and len(result) == len(values[IMAGES]) and result.size > 0
    else:
        fits = result.shape == values[IMAGES].shape
    if not fits:
        raise MethodError(
            f"the rule of method {method.name} must return a float32 array {expected}, not {result.shape}"
        )
    require_finite(result, method.name)
    unchanged = next((values[name] for name, value in frozen.items() if value is result), None)
    if unchanged is not None:  # the rule returned one of its values
        return unchanged
    return np.require(result, requirements=("C", "W"))


def _read_only(value: Floats) -> Floats:
    view = value.view()
    view.flags.writeable = False
    return view
