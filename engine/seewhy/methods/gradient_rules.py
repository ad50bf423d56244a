"""Rules of the gradient methods, each with its paper's equation."""

from __future__ import annotations

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy.contract.constants import (
    DECONVNET_GRADIENTS,
    GUIDED_GRADIENTS,
    IMAGES,
    INPUT_GRADIENTS,
)
from seewhy.methods.base import ATTRIBUTIONS, RuleContext, Values


def backprop(values: Values, context: RuleContext) -> Floats:
    """dy/dx, x being the preprocessed pixels (Simonyan et al. 2013, section 3)."""
    return values[INPUT_GRADIENTS]


def guided_backprop(values: Values, context: RuleContext) -> Floats:
    """dy/dx where a rectifier passes relu(g) f'(x) back (Springenberg et al. 2014, section 3.4)."""
    return values[GUIDED_GRADIENTS]


def deconvnet(values: Values, context: RuleContext) -> Floats:
    """dy/dx where a rectifier is applied to the gradient, relu(g) for a ReLU, whatever its own input was (Zeiler and
    Fergus 2013, section 2.1).
    """
    return values[DECONVNET_GRADIENTS]


def input_x_gradient(values: Values, context: RuleContext) -> Floats:
    """X * dy/dx, place by place and channel by channel (Shrikumar et al. 2016).

    x are the preprocessed pixels, so a channel that has the mean of the preprocessing counts nothing.
    """
    with np.errstate(over="ignore"):  # what overflows is found below
        return values[IMAGES] * values[INPUT_GRADIENTS]


def finished(values: Values, context: RuleContext) -> Floats:
    """What a method of many passes found."""
    return values[ATTRIBUTIONS]
