"""Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365, equations 1 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy.contract.constants import LOGITS
from seewhy.errors import MethodError
from seewhy.methods.base import ATTRIBUTIONS, COMPLETENESS
from seewhy.methods.built_in_options import BASELINES, QUADRATURES
from seewhy.methods.multi_pass import Batch, MultiPass, sum_gradients
from seewhy.methods.options import Options
from seewhy.runtime.sessions import Outputs

_Quadrature: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.float64]]"


def _run(batch: Batch, options: Options) -> Outputs:
    """Return (x - x') times the integral over a from 0 to 1 of dy/dx(x' + a (x - x')), where x' is the baseline.

    The integral is a weighted sum over `steps` points. The completeness error is |sum of the attributions - (y(x) -
    y(x'))|, in units of the logits. By the completeness axiom of the paper, it is zero for the exact integral.
    """
    points, weights = _QUADRATURES[options["rule"]](options["steps"])
    baseline = _baseline(batch, options["baseline"])
    n, each = batch.targets.shape
    change = batch.pixels - baseline

    def point(image: int, step: int) -> Floats:
        result: Floats = baseline + np.float32(points[step]) * change[image]
        return result

    attributions = sum_gradients(batch, weights, point)
    attributions *= change
    at_baseline = batch.logits(baseline[None], np.zeros(1, np.int64))[0].astype(np.float64)
    images = np.arange(n)[:, None]
    expected = batch.values[LOGITS][images, batch.targets] - at_baseline[batch.targets]
    sums = attributions.reshape(each, n, -1).sum(axis=2, dtype=np.float64)
    return {ATTRIBUTIONS: attributions, COMPLETENESS: np.abs(sums - expected.T).astype(np.float32)}


def _baseline(batch: Batch, name: str) -> Floats:
    """Return the baseline as preprocessed pixels (Cin,H,W)."""
    result = np.zeros(batch.pixels.shape[1:], np.float32)
    value = BASELINES[name]
    if value is not None:
        how = batch.preprocessing
        if how is None:
            raise MethodError(
                f"{batch.runs.model.name}: the file does not record how pixels are normalized, so the baseline {name} "
                f"is unknown; use baseline=zero"
            )
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
        result[...] = (np.float32(value) - mean) / std
    return result


@cache
def _gauss_legendre(steps: int) -> _Quadrature:
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


def _midpoint(steps: int) -> _Quadrature:
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


_QUADRATURES: dict[str, Callable[[int], _Quadrature]] = dict(
    zip(QUADRATURES, (_gauss_legendre, _midpoint), strict=True)
)
"""Functions that return points in [0, 1] and weights with sum 1 for a number of steps."""

MULTI_PASS = MultiPass(_run, lambda batch, options: batch.targets.shape[1] * int(options["steps"]))
