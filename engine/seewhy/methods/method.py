"""Methods: the outputs of the graph that they need, and the rules that combine these outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy._shared.text import first_line
from seewhy.contract.constants import IMAGES
from seewhy.errors import MethodError, SeewhyError
from seewhy.methods.base import Rule, RuleContext, Values, require_finite
from seewhy.methods.multi_pass import MultiPass
from seewhy.methods.options import Option

_FLOAT32 = np.dtype(np.float32)
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
        # The options are a copy, because other sub-batches and calls share the request.
        result = method.rule(frozen, replace(context, options=dict(request.options)) if request.options else context)
    except (SeewhyError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MethodError(f"the rule of method {method.name} failed with {reason}") from error
    images = values[IMAGES].shape
    if not isinstance(result, np.ndarray) or result.dtype != _FLOAT32:
        found = f"one of {result.dtype}" if isinstance(result, np.ndarray) else type(result).__name__
    elif method.is_map:
        found = "" if result.ndim == 3 and len(result) == images[0] and result.size > 0 else str(result.shape)
    else:
        found = "" if result.shape == images else str(result.shape)
    if found:
        expected = f"(N,h,w) with N = {images[0]}" if method.is_map else str(images)
        raise MethodError(f"the rule of method {method.name} must return a float32 array {expected}, not {found}")
    require_finite(result, method.name)
    if result.flags.carray:  # contiguous and writeable
        return result
    unchanged = next((values[name] for name, value in frozen.items() if value is result), None)
    # The rule may have returned one of its values.
    return np.require(result, requirements=("C", "W")) if unchanged is None else unchanged


def _read_only(value: Floats) -> Floats:
    view = value.view()
    view.setflags(write=False)
    return view
