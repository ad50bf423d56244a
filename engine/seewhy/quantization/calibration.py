"""Measure the backbone on calibration images: ranges of its activations, and second moments of its layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seewhy._shared.arrays import Floats
from seewhy._shared.text import short
from seewhy.contract import constants as contract
from seewhy.errors import NonFiniteError
from seewhy.quantization.backbone import Backbone, Layer, attributes
from seewhy.runtime.exact_products import make_products_exact
from seewhy.runtime.external_weights import refer_to
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.providers import CPU, session_options

LEVELS = 255
"""Number of steps of an 8-bit value."""
_BATCH = 8
# Values of each tensor and image whose rounding error is computed to choose the range.
_SAMPLES = 512
# Rows of each layer's input whose second moments are computed, per input value, and at least so many.
_ROWS_PER_INPUT, _FEWEST_ROWS, _MOST_ROWS = 2, 512, 4096
# Bytes of second moments that are collected in one pass over the images.
_MOMENT_BYTES = 512 * 2**20
# Bytes of weights that onnxruntime reads where they are instead of in the serialised graph.
_LARGE = 2**16
_SMALLEST_SCALE = 1e-18
_SHRINK = np.linspace(1, 0.3, 29)

Pixels = Callable[[], Iterator[Floats]]
"""Yields the calibration images in batches, float32 of shape (n, Cin, H, W) each."""


@dataclass(frozen=True)
class Moments:
    """Moments of the K inputs that each output of a layer is a weighted sum of."""

    mean: NDArray[np.float64]
    """Means, of shape (groups, K); zeros for a layer without a bias."""
    covariance: NDArray[np.float64]
    """Means of products of the inputs' differences from `mean`, of shape (groups, K, K)."""


@dataclass(frozen=True)
class Range:
    """Range of a tensor in 8 bits: `value = scale * (stored - zero_point)`."""

    scale: np.float32
    zero_point: np.uint8

    @classmethod
    def of(cls, low: float, high: float) -> Range:
        """Return the range from `low` to `high`, extended to contain 0, which is represented exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        # Products of two scales must not vanish in float32.
        scale = np.float32(max((high - low) / LEVELS, _SMALLEST_SCALE)) if high > low else np.float32(1)
        return cls(scale, np.uint8(np.clip(np.rint(-low / scale), 0, LEVELS)))

    def rounded(self, values: Floats) -> Floats:
        """Return values after conversion to 8 bits and back."""
        zero = np.float32(self.zero_point)
        found: Floats = (np.clip(np.rint(values / self.scale) + zero, 0, LEVELS) - zero) * self.scale
        return found


def batches(pixels: Floats) -> Iterator[Floats]:
    """Yield preprocessed pixels in batches."""
    for start in range(0, len(pixels), _BATCH):
        yield pixels[start : start + _BATCH]


def tensor_values(
    backbone: Backbone, names: Sequence[str], pixels: Floats, threads: int
) -> Iterator[dict[str, Floats]]:
    """Compute tensors of the float32 backbone.

    Args:
        backbone: The backbone.
        names: Names of tensors up to the target layer; `images` is one of them.
        pixels: Preprocessed images, float32 of shape (N, Cin, H, W).
        threads: Number of threads.

    Yields:
        The tensors of each batch by name.
    """
    computed = [name for name in names if name != contract.IMAGES]
    session = _session(backbone, computed, threads) if computed else None
    for part in batches(pixels):
        values = session.run(computed, {contract.IMAGES: part}) if session else []
        yield {contract.IMAGES: part, **dict(zip(computed, values, strict=True))}


def _session(backbone: Backbone, names: Sequence[str], threads: int) -> onnxruntime.InferenceSession:
    """Return a session that computes tensors of the float32 backbone."""
    model = onnx.ModelProto()
    model.CopyFrom(backbone.model)
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    pruned = prune(model, names)
    arrays = {tensor.name: backbone.arrays[tensor.name] for tensor in pruned.graph.initializer}
    large = refer_to(pruned, [name for name, array in arrays.items() if array.nbytes >= _LARGE])
    for tensor in pruned.graph.initializer:
        if tensor.name not in large:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    options = session_options()
    options.intra_op_num_threads = threads
    make_products_exact(options, pruned.graph)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.require(arrays[name], requirements="C")) for name in large]
    options.add_external_initializers(large, values)
    return onnxruntime.InferenceSession(pruned.SerializeToString(), options, providers=[CPU])


def measure_ranges(backbone: Backbone, names: Sequence[str], pixels: Floats, threads: int) -> dict[str, Range]:
    """Choose the 8-bit range of tensors: the one whose rounding and clipping errors have the smallest squares.

    Rare large values would otherwise make the steps of all others coarse. The largest values that occur are the
    starting point, and up to 70 % of the range is given up.

    Args:
        backbone: The backbone.
        names: Names of tensors.
        pixels: Calibration images, float32 of shape (N, Cin, H, W).
        threads: Number of threads.

    Returns:
        The range of each tensor by its name.

    Raises:
        NonFiniteError: If a tensor contains NaN or infinity.
    """
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    samples: dict[str, list[Floats]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    for values in tensor_values(backbone, names, pixels, threads):
        for name in names:
            rows = values[name].reshape(len(values[name]), -1)
            lows[name] = min(lows.get(name, np.inf), float(rows.min()))
            highs[name] = max(highs.get(name, -np.inf), float(rows.max()))
            samples[name].append(rows[:, random.integers(0, rows.shape[1], _SAMPLES)].ravel())
    wrong = next((name for name in names if not np.isfinite([lows[name], highs[name]]).all()), None)
    if wrong is not None:
        raise NonFiniteError(
            f"the value {short(wrong)} is NaN or infinity for some image; check the images and weights"
        )
    return {name: _best_range(lows[name], highs[name], np.concatenate(samples[name])) for name in names}


def _best_range(low: float, high: float, values: Floats) -> Range:
    """Return the range within [low, high] whose error on sampled values is smallest, and the widest of equal ones."""
    candidates = [Range.of(low * share, high * share) for share in _SHRINK]
    errors = [float(np.square(one.rounded(values) - values).mean()) for one in candidates]
    # A narrower range must be clearly better: the samples miss the rarest values.
    return candidates[next(i for i, error in enumerate(errors) if error <= min(errors) * 1.005)]


def second_moments(
    backbone: Backbone, layers: Sequence[Layer], pixels: Floats, threads: int
) -> Iterator[tuple[Layer, Moments]]:
    """Compute the moments of the inputs that each output of a layer is a weighted sum of.

    Args:
        backbone: The backbone.
        layers: Layers of it.
        pixels: Calibration images, float32 of shape (N, Cin, H, W).
        threads: Number of threads.

    Yields:
        Each layer, and its moments over a fixed sample of positions of all images.
    """
    group: list[Layer] = []
    for layer in layers:
        if group and sum(map(_moment_bytes, [*group, layer])) > _MOMENT_BYTES:
            yield from _moments(backbone, group, pixels, threads)
            group = []
        group.append(layer)
    yield from _moments(backbone, group, pixels, threads)


def _moment_bytes(layer: Layer) -> int:
    return int(layer.groups * layer.weights[0].size ** 2 * 4)


def _moments(
    backbone: Backbone, layers: Sequence[Layer], pixels: Floats, threads: int
) -> Iterator[tuple[Layer, Moments]]:
    """Compute the moments of some layers in one pass over the images."""
    products: dict[str, Floats] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    names = list(dict.fromkeys(layer.node.input[0] for layer in layers))
    random = np.random.default_rng(0)
    for values in tensor_values(backbone, names, pixels, threads):
        for layer in layers:
            value = values[layer.node.input[0]]
            rows = min(max(_FEWEST_ROWS, _ROWS_PER_INPUT * layer.weights[0].size), _MOST_ROWS)
            inputs = _inputs(layer, value, -(-rows // len(pixels)), random)
            product = np.matmul(inputs, inputs.transpose(0, 2, 1))
            products[layer.name] = products[layer.name] + product if layer.name in products else product
            sums[layer.name] = sums.get(layer.name, 0.0) + inputs.sum(axis=2, dtype=np.float64)
            counts[layer.name] = counts.get(layer.name, 0) + inputs.shape[2]
    for layer in layers:
        # Without a bias, no constant can make up for a mean.
        mean = sums[layer.name] / counts[layer.name] * (len(layer.node.input) > 2)
        second = products.pop(layer.name).astype(np.float64) / counts[layer.name]
        yield layer, Moments(mean, second - mean[:, :, None] * mean[:, None])


def _inputs(layer: Layer, value: Floats, positions: int, random: np.random.Generator) -> Floats:
    """Return what a layer multiplies at some positions of each image, of shape (groups, K, images * positions)."""
    if layer.node.op_type != "Conv":
        rows = value.reshape(-1, value.shape[-1])
        return rows[random.permutation(len(rows))[: positions * len(value)]].T[None]
    options = attributes(layer.node)
    height, width = layer.weights.shape[2:]
    top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
    (down, across), (dy, dx) = options.get("strides", (1, 1)), options.get("dilations", (1, 1))
    value = np.pad(value, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = (value.shape[2] - (height - 1) * dy - 1) // down + 1
    columns = (value.shape[3] - (width - 1) * dx - 1) // across + 1
    y, x = np.divmod(random.permutation(rows * columns)[:positions], columns)
    taken = np.stack(
        [value[:, :, y * down + i * dy, x * across + j * dx] for i in range(height) for j in range(width)], axis=2
    )  # (images, channels, kernel, positions)
    return taken.transpose(1, 2, 0, 3).reshape(layer.groups, layer.weights[0].size, -1)
