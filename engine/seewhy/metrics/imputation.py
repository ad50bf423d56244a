"""Imputation of removed pixels from their neighbours (Rong et al. 2022, arXiv:2202.00449, section 4.2).

Each removed pixel is the weighted mean of its eight neighbours: 1/6 for those that share an edge, 1/12 for those at the
corners, divided by the sum of the weights at the border of the image. These are linear equations for all removed
pixels. Their matrix is symmetric and positive definite, so conjugate gradients solve them on the pixel grid. This needs
no sparse matrices. The preconditioner adds up corrections on coarser and coarser grids (Bramble et al. 1990, Parallel
multilevel preconditioners), so large holes take hardly more steps than small ones. For 224 x 224 pixels, this is about
as fast as SciPy's direct solver.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats

_Number = TypeVar("_Number", np.float32, np.float64)

# Largest residual of the equations, as a share of the range of the pixels: imputed pixels are then exact to about 1e-5
# of the range. The second number is how far float32 reduces a residual.
_TOLERANCE, _REDUCTION = 3e-7, 1e-4


def impute(pixels: Floats, missing: NDArray[np.bool_]) -> Floats:
    """Return an image whose missing pixels are imputed.

    Conjugate gradients run in float32. Each round starts from the residual in float64, so rounding errors do not stay.

    Args:
        pixels: Image, float32 of shape (Cin, H, W).
        missing: True at the missing pixels, of shape (H, W). At least one pixel must not be missing.

    Returns:
        The image, float32 of shape (Cin, H, W).
    """
    weights = neighbour_sum(np.ones((1, *missing.shape)))
    known = pixels[:, ~missing].astype(np.float64)
    # Float64 rounds at 1e-16 of the largest pixel.
    limit = max(_TOLERANCE * float(np.ptp(known, axis=1).max()), 1e-13 * float(np.abs(known).max()))
    filled = np.where(missing, known.mean(axis=1)[:, None, None], pixels.astype(np.float64))
    while True:
        residual = (neighbour_sum(filled) - weights * filled) * missing
        if np.abs(residual).max() <= limit:
            return filled.astype(np.float32)
        filled += _conjugate_gradients(residual, missing, weights.astype(np.float32), limit / 2)


def neighbour_sum(values: NDArray[_Number]) -> NDArray[_Number]:
    """Return the weighted sum of the neighbours of each pixel, for images (Cin, H, W); there are none outside."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    # The weights 1 2 1, 2 0 2, 1 2 1 are the product of 1 2 1 with itself, less 4 in the middle.
    columns = padded[:, :-2] + padded[:, 2:]
    columns += 2 * padded[:, 1:-1]
    result = columns[:, :, :-2] + columns[:, :, 2:]
    result += 2 * columns[:, :, 1:-1]
    result -= 4 * values
    result /= 12
    return result


def _conjugate_gradients(
    residual: NDArray[np.float64], missing: NDArray[np.bool_], weights: Floats, limit: float
) -> Floats:
    """Return a solution of the equations for a right-hand side, as exact as the limit or float32 allows."""
    left = residual.astype(np.float32)
    mask = missing.astype(np.float32)
    goal = max(limit, _REDUCTION * float(np.abs(left).max()))
    solution, direction = np.zeros_like(left), _preconditioned(left, weights) * mask
    power = _dot(left, direction)
    # There are far fewer steps than this. The limit bounds the effect of rounding.
    for _ in range(4 * sum(missing.shape)):
        if np.abs(left).max() <= goal:
            break
        change = (weights * direction - neighbour_sum(direction)) * mask
        length = power / np.maximum(_dot(direction, change), np.finfo(np.float32).tiny)
        solution += length * direction
        left -= length * change
        scaled = _preconditioned(left, weights) * mask
        new = _dot(left, scaled)
        direction *= new / np.maximum(power, np.finfo(np.float32).tiny)
        direction += scaled
        power = new
    return solution


def _preconditioned(residual: Floats, weights: Floats) -> Floats:
    """Return the sum of corrections on grids whose cells are 1, 2, 4 ... pixels wide, of shape (Cin, H, W)."""
    grids = [residual]
    while min(grids[-1].shape[1:]) > 2:
        rows, columns = grids[-1].shape[1:]
        even = np.pad(grids[-1], ((0, 0), (0, rows % 2), (0, columns % 2)))
        pairs = even[:, ::2] + even[:, 1::2]
        grids.append(pairs[:, :, ::2] + pairs[:, :, 1::2])
    result = np.zeros_like(grids[-1])
    for level in range(len(grids) - 1, -1, -1):
        rows, columns = grids[level].shape[1:]
        if level + 1 < len(grids):
            result = result.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
        # The diagonal of the equations of a coarse grid is proportional to the circumference of its cells.
        result = result + grids[level] / (np.float32(3 * 2**level) if level else weights)
    return result


def _dot(first: Floats, second: Floats) -> Floats:
    """Return the inner product for each channel, of shape (Cin, 1, 1)."""
    products: Floats = np.einsum("cij,cij->c", first, second)[:, None, None]
    return products
