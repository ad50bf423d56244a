"""Rules of the CAM methods, each with its paper's equation.

Below, A is `activations` and G is `gradients`, both (N,C,h,w). Sums over k run over channels, and sums over i and j
over the places of a map.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seewhy._core import (
    channel_means,
    gradcam_plus_plus_weights,
    minmax,
    multiply_by_map,
    product_sum,
    weighted_sum,
    xgradcam_weights,
)
from seewhy._shared.arrays import Floats
from seewhy.contract.constants import (
    ACTIVATIONS,
    CLASS_WEIGHTS,
    GRADIENTS,
    GUIDED_GRADIENTS,
)
from seewhy.methods.base import CHANNEL_WEIGHTS, RuleContext, Values, full_size

# Sums of activations, each channel with one weight.


def cam(values: Values, context: RuleContext) -> Floats:
    """sum_k w_k A_k, w being the target's row of the linear head (Zhou et al. 2016, equation 2); no ReLU."""
    return _weighted(values, values[CLASS_WEIGHTS], context)


def gradcam(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k w_k A_k), w_k = 1/(h w) sum_ij G_kij (Selvaraju et al. 2017, equations 1 and 2)."""
    return _weighted(values, channel_means(values[GRADIENTS], context.threads), context)


def guided_gradcam(values: Values, context: RuleContext) -> Floats:
    """Guided gradient x upsampled Grad-CAM scaled to [0,1] (Selvaraju et al. 2017, section 3.2)."""
    heat = minmax(full_size(gradcam(values, context), True, context), context.threads)
    return multiply_by_map(values[GUIDED_GRADIENTS], heat, context.threads)


def gradcam_plus_plus(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k w_k A_k), w_k = sum_ij alpha_kij relu(G_kij) (Chattopadhay et al. 2018, equations 7 and 19).

        alpha_kij = G_kij^2 / (2 G_kij^2 + G_kij^3 sum_ab A_kab)

    The paper's factor e^y, the same for all weights, is left out: it overflows, and scaling takes it away again. Where
    the denominator is zero alpha is 0. That is where G is zero, and where the sum of A is exactly -2/G. Close to the
    latter weights are large, and beyond it negative, as the equation says; it cannot happen behind a ReLU, where no sum
    of A is negative.
    """
    weights = gradcam_plus_plus_weights(values[ACTIVATIONS], values[GRADIENTS], context.threads)
    return _weighted(values, weights, context)


def xgradcam(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k w_k A_k), w_k = sum_ij G_kij A_kij / sum_ij A_kij (Fu et al. 2020).

    A channel whose activations sum to zero has weight 0. Behind a ReLU they are then all zero, and the weight makes no
    difference.
    """
    weights = xgradcam_weights(values[ACTIVATIONS], values[GRADIENTS], context.threads)
    return _weighted(values, weights, context)


def channel_weighted(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k w_k A_k) with the weights that a method of many passes found."""
    return _weighted(values, values[CHANNEL_WEIGHTS], context)


# Sums in which each place has its own weight, or which need no gradient.


def hirescam(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k G_k * A_k), the product being taken place by place (Draelos and Carin 2020)."""
    return product_sum(values[ACTIVATIONS], values[GRADIENTS], False, context.threads)


def layercam(values: Values, context: RuleContext) -> Floats:
    """relu(sum_k relu(G_k) * A_k), place by place (Jiang et al. 2021, equations 7 and 8)."""
    return product_sum(values[ACTIVATIONS], values[GRADIENTS], True, context.threads)


def eigencam(values: Values, context: RuleContext) -> Floats:
    """relu(A v), A being one image's (h*w,C) matrix and v its first right singular vector (Muhammad and Yeasin 2020).

    A is not centred. A singular vector has no sign of its own: v's is such that sum_ij of the map times sum_k A_k is
    positive, so the map is positive where activations are. Where that sum is zero, the map's value of the largest
    magnitude is positive. The class makes no difference. Computed in float64.
    """
    activations = values[ACTIVATIONS]
    maps = np.empty((len(activations), *activations.shape[2:]), np.float32)
    for image, result in zip(activations, maps, strict=True):  # one by one: a float64 copy of a batch may be large
        result[...] = _first_component(image.reshape(len(image), -1).astype(np.float64)).reshape(result.shape)
    return maps


_NEARLY_ZERO = 1e-9
"""Of the largest value that the sum which decides the sign can have: rounding is far below that."""


def _first_component(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,P) -> (P,): the projection of each place's C activations on the first right singular vector of the (P,C)."""
    count, places = channels.shape
    # From the smaller of the two products of the matrix with itself: its eigenvectors are the singular vectors. The
    # squares cost precision only for singular values that are small beside the first, and those are not used.
    if places <= count:
        squares, vectors = np.linalg.eigh(channels.T @ channels)
        component = vectors[:, -1] * math.sqrt(max(float(squares[-1]), 0.0))
    else:
        component = np.linalg.eigh(channels @ channels.T)[1][:, -1] @ channels
    lean = float(component @ channels.sum(axis=0))
    if abs(lean) <= _NEARLY_ZERO * math.sqrt(count) * float(component @ component):
        lean = float(component[np.abs(component).argmax()])
    signed: NDArray[np.float64] = -component if lean < 0 else component
    return signed


def _weighted(values: Values, weights: Floats, context: RuleContext) -> Floats:
    return weighted_sum(values[ACTIVATIONS], weights, threads=context.threads)
