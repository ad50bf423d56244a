"""Rules of the gradient methods, each with the equation of its paper.

Each rule returns attributions, float32 of shape (N, Cin, H, W).
"""

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
    """Return dy/dx, where x are the preprocessed pixels (Simonyan et al. 2013, section 3)."""
    return values[INPUT_GRADIENTS]


def guided_backprop(values: Values, context: RuleContext) -> Floats:
    """Return dy/dx, where each rectifier f passes relu(g) f'(x) back (Springenberg et al. 2014, section 3.4)."""
    return values[GUIDED_GRADIENTS]


def deconvnet(values: Values, context: RuleContext) -> Floats:
    """Return dy/dx, where each rectifier is applied to the gradient (Zeiler and Fergus 2013, section 2.1).

    A ReLU passes relu(g) back, independent of its input.
    """
    return values[DECONVNET_GRADIENTS]


def input_x_gradient(values: Values, context: RuleContext) -> Floats:
    """Return x * dy/dx for each position and channel, where x are the preprocessed pixels (Shrikumar et al. 2016).

    A value that equals the mean of the preprocessing becomes x = 0 and has attribution 0.
    """
    with np.errstate(over="ignore"):  # `apply_rule` reports values that overflow
        return values[IMAGES] * values[INPUT_GRADIENTS]


def multi_pass_attributions(values: Values, context: RuleContext) -> Floats:
    """Return the attributions that a multi-pass method computed."""
    return values[ATTRIBUTIONS]
