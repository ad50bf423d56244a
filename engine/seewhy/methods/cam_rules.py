"""Rules of the CAM methods, each with the equation of its paper.

In the equations, A is `activations` and G is `gradients`, both of shape (N, C, h, w). Sums over k run over the
channels, and sums over i and j over the positions of a map. Rules of map methods return maps before the ReLU, float32
of shape (N, h, w). The ReLU of an equation is applied when the maps are enlarged, by `seewhy.methods.base.full_size`.
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
from seewhy.methods.base import CHANNEL_WEIGHTS, RuleContext, Values, full_size, require_finite

# Rules with one weight for each channel.


def cam(values: Values, context: RuleContext) -> Floats:
    """Return sum_k w_k A_k, where w is the target's row of the linear head (Zhou et al. 2016, equation 2). No ReLU."""
    return _weighted(values, values[CLASS_WEIGHTS], context)


def gradcam(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k w_k A_k), where w_k = 1/(h w) sum_ij G_kij (Selvaraju et al. 2017, equations 1 and 2)."""
    return _weighted(values, channel_means(values[GRADIENTS], context.threads), context)


def guided_gradcam(values: Values, context: RuleContext) -> Floats:
    """Return the guided gradient times the upsampled Grad-CAM, scaled to [0, 1] (Selvaraju et al. 2017, section 3.2).

    The attributions have the shape (N, Cin, H, W).
    """
    maps = gradcam(values, context)
    require_finite(maps, "guided-gradcam")  # scaling to [0, 1] would hide an infinite map
    heat = minmax(full_size(maps, True, context), context.threads)
    return multiply_by_map(values[GUIDED_GRADIENTS], heat, context.threads)


def gradcam_plus_plus(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k w_k A_k), where w_k = sum_ij alpha_kij relu(G_kij) and alpha is defined below.

        alpha_kij = G_kij^2 / (2 G_kij^2 + G_kij^3 sum_ab A_kab)

    These are equations 7 and 19 of Chattopadhay et al. 2018, without the factor e^y. This factor is the same for all
    weights, overflows, and disappears when the map is scaled.

    If the denominator is zero, alpha is 0. This happens if G is zero, and if the sum of A is exactly -2/G. Near the
    second case the weights are large, and beyond it negative, as the equation says. The second case cannot occur after
    a ReLU, because no sum of A is negative there.
    """
    weights = gradcam_plus_plus_weights(values[ACTIVATIONS], values[GRADIENTS], context.threads)
    return _weighted(values, weights, context)


def xgradcam(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k w_k A_k), where w_k = sum_ij G_kij A_kij / sum_ij A_kij (Fu et al. 2020).

    A channel whose activations sum to zero has weight 0. After a ReLU all its activations are then zero, so the weight
    makes no difference.
    """
    weights = xgradcam_weights(values[ACTIVATIONS], values[GRADIENTS], context.threads)
    return _weighted(values, weights, context)


def channel_weighted(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k w_k A_k), where the weights w_k come from a multi-pass method."""
    return _weighted(values, values[CHANNEL_WEIGHTS], context)


# Rules with one weight for each position, or without gradients.


def hirescam(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k G_k * A_k), where * is elementwise (Draelos and Carin 2020)."""
    return product_sum(values[ACTIVATIONS], values[GRADIENTS], False, context.threads)


def layercam(values: Values, context: RuleContext) -> Floats:
    """Return relu(sum_k relu(G_k) * A_k), where * is elementwise (Jiang et al. 2021, equations 7 and 8)."""
    return product_sum(values[ACTIVATIONS], values[GRADIENTS], True, context.threads)


def eigencam(values: Values, context: RuleContext) -> Floats:
    """Return relu(A v), where v is the first right singular vector of A (Muhammad and Yeasin 2020).

    A is the (h*w, C) matrix of the activations of one image. It is not centered. The sign of a singular vector is
    arbitrary. It is chosen such that sum_ij of the map times sum_k A_k is positive, so the map is positive where the
    activations are. If that sum is zero, the value of the largest magnitude in the map is positive.

    The map does not depend on the class. It is computed in float64.
    """
    activations = values[ACTIVATIONS]
    maps = np.empty((len(activations), *activations.shape[2:]), np.float32)
    # Convert one image at a time, because a float64 copy of a batch may be large.
    for image, result in zip(activations, maps, strict=True):
        result[...] = _first_component(image.reshape(len(image), -1).astype(np.float64)).reshape(result.shape)
    return maps


_NEARLY_ZERO = 1e-9
"""Share of its maximum below which the sum that decides the sign counts as zero. Rounding errors are much smaller."""


def _first_component(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project the activations (C,P) of P positions on the first right singular vector of the (P,C) matrix."""
    count, positions = channels.shape
    # The singular vectors are the eigenvectors of the matrix times its transpose. Use the smaller of the two products.
    # Squaring loses precision only for singular values much smaller than the first, which are not used.
    if positions <= count:
        squares, vectors = np.linalg.eigh(channels.T @ channels)
        component = vectors[:, -1] * math.sqrt(max(float(squares[-1]), 0.0))
    else:
        component = np.linalg.eigh(channels @ channels.T)[1][:, -1] @ channels
    sign = float(component @ channels.sum(axis=0))
    if abs(sign) <= _NEARLY_ZERO * math.sqrt(count) * float(component @ component):
        sign = float(component[np.abs(component).argmax()])
    signed: NDArray[np.float64] = -component if sign < 0 else component
    return signed


def _weighted(values: Values, weights: Floats, context: RuleContext) -> Floats:
    return weighted_sum(values[ACTIVATIONS], weights, threads=context.threads)
