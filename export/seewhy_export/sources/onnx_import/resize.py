"""The ONNX operators Resize and Upsample.

Every interpolation mode of Resize is linear and treats one dimension at a time, so it is a multiplication by a matrix.
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

from seewhy_export.sources.onnx_import.values import NodeInfo, Size, Unsupported, Value, known_sizes, normalized_axes

Floats = NDArray[np.float64]

# coordinate_transformation_mode -> function of (output positions, output length, input length, scale) that returns
# positions in the input.
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
    """Return the matrix that resizes `size` values to `out` values.

    Args:
        out: Output length.
        size: Input length.
        scale: Ratio of output to input length. It may differ slightly from out / size.
        mode: `nearest`, `linear` or `cubic`.
        coordinates: The attribute `coordinate_transformation_mode`.
        rounding: The attribute `nearest_mode`.
        cubic: The attribute `cubic_coeff_a`, the parameter a of Keys' kernel.
        exclude_outside: True to give no weight to positions outside the input.

    Returns:
        Matrix of shape (out, size), float64.
    """
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
        taps = [(index, np.where((index >= 0) & (index < size), weight, 0)) for index, weight in taps]
    matrix = np.zeros((out, size))
    for index, weight in taps:
        np.add.at(matrix, (np.arange(out), index.clip(0, size - 1).astype(int)), weight)
    return matrix / matrix.sum(1, keepdims=True) if exclude_outside else matrix


def _cubic(x: Floats, a: float) -> Floats:
    """Return Keys' convolution kernel (Keys 1981, equation 15, with its parameter a)."""
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize(node: NodeInfo, x: Tensor, *inputs: Value | None) -> Tensor:
    """Apply Resize, whose inputs are (x, scales) in opset 10 and (x, roi, scales, sizes) later."""
    if node.opset < 11:
        return _resized(node, x, _scales(inputs[0]), None, b"asymmetric", b"floor")
    _, scales, sizes = (*inputs, None, None, None)[:3]
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unsupported("antialias or an aspect ratio policy")
    given = None if scales is None or not np.size(scales) else _scales(scales)
    lengths = None if sizes is None or given is not None else known_sizes(sizes, "size")
    coordinates = node.get("coordinate_transformation_mode", b"half_pixel")
    return _resized(node, x, given, lengths, coordinates, node.get("nearest_mode", b"round_prefer_floor"))


def upsample(node: NodeInfo, x: Tensor, scales: Value | None = None) -> Tensor:
    """Apply Upsample, which Resize has replaced."""
    given = list(node.get("scales")) if scales is None else _scales(scales)
    return _resized(node, x, given, None, b"asymmetric", b"floor")


def _scales(value: Value | None) -> list[float]:
    """Return the scales as numbers."""
    if not isinstance(value, np.ndarray) or any(isinstance(v, torch.SymFloat) for v in value.reshape(-1)):
        raise Unsupported("its scales depend on the images")
    return [float(scale) for scale in value.reshape(-1)]


def _resized(
    node: NodeInfo, x: Tensor, scales: list[float] | None, sizes: list[Size] | None, coordinates: bytes, rounding: bytes
) -> Tensor:
    """Resize to scales or sizes, one for each axis."""
    mode = node.get("mode", b"nearest")
    if mode not in (b"nearest", b"linear", b"cubic") or coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise Unsupported(f"{mode.decode()}, {coordinates.decode()}, {rounding.decode()}")
    axes = normalized_axes(x.dim(), node.get("axes") or range(x.dim()))
    given: Any = scales if scales is not None else sizes
    if given is None or len(given) != len(axes):
        raise Unsupported("a number of sizes that differs from the number of axes")
    changes: dict[int, tuple[int, float]] = {}
    for axis, value in zip(axes, given, strict=True):
        if axis < 2 and (scales is None or value == 1):
            continue  # the batch and channels, for which a list of sizes has entries too
        size = int(x.shape[axis])
        out, scale = (math.floor(size * value), float(value)) if scales is not None else (int(value), value / size)
        if (out, scale) != (size, 1.0):
            changes[axis] = (out, scale)
    exact = {axis: scale == out / int(x.shape[axis]) for axis, (out, scale) in changes.items()}
    if x.dim() == 4 and changes and all(exact.values()):
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
            node.get("cubic_coeff_a", -0.75),
            bool(node.get("exclude_outside", 0)),
        )
        weights = torch.tensor(matrix.tolist(), dtype=x.dtype)
        x = torch.matmul(x.movedim(axis, -1), weights.T).movedim(-1, axis)
    return x
