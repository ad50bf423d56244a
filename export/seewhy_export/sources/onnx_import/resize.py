"""ONNX's Resize. Every interpolation that it knows is linear and takes one dimension at a time, so it is a matrix.

The formulas are those of the operator's specification: https://onnx.ai/onnx/operators/onnx__Resize.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seewhy_export.sources.onnx_import.values import At, Size, Unsupported, Value, axes_of, sizes

Floats = NDArray[np.float64]

# (output positions, output length, input length, scale) -> positions in the input.
_COORDINATES: dict[bytes, Callable[[Floats, int, int, float], Floats]] = {
    b"half_pixel": lambda x, out, size, scale: (x + 0.5) / scale - 0.5,
    b"pytorch_half_pixel": lambda x, out, size, scale: (x + 0.5) / scale - 0.5 if out > 1 else 0 * x,
    b"half_pixel_symmetric": lambda x, out, size, scale: (
        size / 2 * (1 - out / (scale * size)) + (x + 0.5) / scale - 0.5
    ),
    b"align_corners": lambda x, out, size, scale: x * (size - 1) / (out - 1) if out > 1 else 0 * x,
    b"asymmetric": lambda x, out, size, scale: x / scale,
    b"tf_half_pixel_for_nn": lambda x, out, size, scale: (x + 0.5) / scale,
}

_ROUNDINGS: dict[bytes, Callable[[Floats], Floats]] = {
    b"round_prefer_floor": lambda x: np.ceil(x - 0.5),
    b"round_prefer_ceil": lambda x: np.floor(x + 0.5),
    b"floor": np.floor,
    b"ceil": np.ceil,
}


def interpolation_matrix(
    out: int,
    size: int,
    scale: float,
    mode: bytes = b"linear",
    coordinates: bytes = b"half_pixel",
    rounding: bytes = b"round_prefer_floor",
    cubic: float = -0.75,
    exclude_outside: bool = False,
) -> Floats:
    """What to multiply `size` values with to get `out`: (out, size)."""
    position = _COORDINATES[coordinates](np.arange(out, dtype=np.float64), out, size, scale)
    if mode == b"nearest":
        taps = [(_ROUNDINGS[rounding](position), np.ones(out))]
    else:
        base = np.floor(position)
        fraction = position - base
        if mode == b"linear":
            taps = [(base, 1 - fraction), (base + 1, fraction)]
        else:
            taps = [(base + i, _cubic(np.abs(fraction - i), cubic)) for i in (-1, 0, 1, 2)]
    if exclude_outside:
        taps = [(at, np.where((at >= 0) & (at < size), weight, 0)) for at, weight in taps]
    matrix = np.zeros((out, size))
    for at, weight in taps:
        np.add.at(matrix, (np.arange(out), at.clip(0, size - 1).astype(int)), weight)
    return matrix / matrix.sum(1, keepdims=True) if exclude_outside else matrix


def _cubic(x: Floats, a: float) -> Floats:
    """Keys' convolution kernel (1981, equation 15 with its parameter a)."""
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize(at: At, x: Tensor, *inputs: Value | None) -> Tensor:
    """Resize, of opset 10 (x, scales) and later (x, roi, scales, sizes)."""
    if at.opset < 11:
        return _resized(at, x, _scales(inputs[0]), None, b"asymmetric", b"floor")
    _, scales, wanted = (*inputs, None, None, None)[:3]
    if at.get("antialias", 0) or at.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unsupported("antialias or an aspect ratio policy")
    given = None if scales is None or not np.size(scales) else _scales(scales)
    length = None if wanted is None or given is not None else sizes(wanted, "size")
    coordinates = at.get("coordinate_transformation_mode", b"half_pixel")
    return _resized(at, x, given, length, coordinates, at.get("nearest_mode", b"round_prefer_floor"))


def upsample(at: At, x: Tensor, scales: Value | None = None) -> Tensor:
    """Upsample, which Resize has replaced."""
    given = list(at.get("scales")) if scales is None else _scales(scales)
    return _resized(at, x, given, None, b"asymmetric", b"floor")


def _scales(value: Value | None) -> list[float]:
    if not isinstance(value, np.ndarray) or any(isinstance(v, torch.SymFloat) for v in value.reshape(-1)):
        raise Unsupported("its scales depend on the images")
    return [float(scale) for scale in value.reshape(-1)]


def _resized(
    at: At, x: Tensor, scales: list[float] | None, wanted: list[Size] | None, coordinates: bytes, rounding: bytes
) -> Tensor:
    mode = at.get("mode", b"nearest")
    if mode not in (b"nearest", b"linear", b"cubic") or coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise Unsupported(f"{mode.decode()}, {coordinates.decode()}, {rounding.decode()}")
    axes = axes_of(x.dim(), at.get("axes") or range(x.dim()))
    given: Any = scales if scales is not None else wanted
    if given is None or len(given) != len(axes):
        raise Unsupported("no sizes, or not as many as there are axes")
    changes: dict[int, tuple[int, float]] = {}
    for axis, value in zip(axes, given, strict=True):
        if axis < 2 and (scales is None or value == 1):
            continue  # images and channels, which a list of sizes names as well
        size = int(x.shape[axis])
        out, scale = (math.floor(size * value), float(value)) if scales is not None else (int(value), value / size)
        if (out, scale) != (size, 1.0):
            changes[axis] = (out, scale)
    whole = {axis: scale == out / int(x.shape[axis]) for axis, (out, scale) in changes.items()}
    if x.dim() == 4 and changes and all(whole.values()):
        shape = [changes.get(axis, (int(x.shape[axis]), 1.0))[0] for axis in (2, 3)]
        if (mode, coordinates, rounding) == (b"nearest", b"asymmetric", b"floor"):
            return F.interpolate(x, shape, mode="nearest")
        if (mode, coordinates) == (b"linear", b"half_pixel"):
            return F.interpolate(x, shape, mode="bilinear")
    for axis, (out, scale) in changes.items():
        matrix = interpolation_matrix(
            out,
            int(x.shape[axis]),
            scale,
            mode,
            coordinates,
            rounding,
            at.get("cubic_coeff_a", -0.75),
            bool(at.get("exclude_outside", 0)),
        )
        weights = torch.tensor(matrix.tolist(), dtype=x.dtype)
        x = torch.matmul(x.movedim(axis, -1), weights.T).movedim(-1, axis)
    return x
