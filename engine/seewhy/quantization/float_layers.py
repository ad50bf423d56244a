"""Choose the layers that stay in float32: the first ones, and those that cost the maps most in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy._shared.cpu_count import usable_cores
from seewhy.contract import constants as contract
from seewhy.contract.quantization import Trade
from seewhy.explainer.derived_models import derived_metadata, write_model
from seewhy.explainer.explainer import Explainer
from seewhy.quantization.backbone import Backbone, Layer
from seewhy.quantization.calibration import Range, measure_ranges, second_moments, tensor_values
from seewhy.quantization.drift import measure_drift
from seewhy.quantization.qdq_graph import build, plan
from seewhy.quantization.weight_rounding import RoundedWeights, round_weights
from seewhy.runtime.model_file import ModelFile

FURTHER_COUNTS = (1, 2, 3, 4, 6, 8)
"""Numbers of layers that are tried in float32 beside the first ones, in order."""
# The first layers are tried up to this number.
_MOST_FIRST = 8
# Products for each output value up to which first layers are as fast in float32. The first three of EfficientNet-Lite
# have 21; ResNet's first layer has 147, and ResNet-50 takes 20 % longer with it in float32.
_CHEAP_PRODUCTS = 32
# Largest absolute value of a stored bias. It fits in 32 bits beside the sum of products, and in float32 exactly.
_LARGEST_BIAS = 2**24
# Images on which single layers are compared.
_RANKING_IMAGES = 8


@dataclass(frozen=True)
class Candidates:
    """Quantised files of one model file that differ in the layers that stay in float32."""

    source: ModelFile
    """The float32 file."""
    backbone: Backbone
    """Its backbone."""
    float32: Explainer
    """Explainer of the float32 file."""
    pixels: Floats = field(repr=False)
    """Calibration images, float32 of shape (N, Cin, H, W)."""
    folder: Path
    """Folder of temporary files."""
    progress: Callable[[str, int, int], object]
    """Function called as progress(phase, done, total)."""

    @property
    def threads(self) -> int:
        """Number of threads."""
        return self.float32.threads or usable_cores()

    @cached_property
    def ranges(self) -> Mapping[str, Range]:
        """Range of each value that some candidate has in 8 bits."""
        self.progress("measuring ranges", 0, 1)
        # What follows a layer in float32 is not in 8 bits before the next layer, whose input then needs its own range.
        names = [*plan(self.backbone, ()).measured, *(layer.node.input[0] for layer in self.backbone.layers)]
        found = measure_ranges(self.backbone, list(dict.fromkeys(names)), self.pixels, self.threads)
        self.progress("measuring ranges", 1, 1)
        return found

    @cached_property
    def rounded(self) -> Mapping[str, RoundedWeights]:
        """Weights of each layer in 8 bits, by its name."""
        found: dict[str, RoundedWeights] = {}
        layers = self.backbone.layers
        for layer, moments in second_moments(self.backbone, layers, self.pixels, self.threads):
            found[layer.name] = round_weights(layer.weights, moments, self._smallest_scale(layer))
            self.progress("rounding weights", len(found), len(layers))
        return found

    def _smallest_scale(self, layer: Layer) -> Floats | float:
        """Return the smallest scale of each output channel's weights with which its bias fits in 32 bits.

        A channel that training has switched off has tiny weights, but not always a tiny bias.
        """
        if len(layer.node.input) < 3:
            return 0
        bias = np.abs(self.backbone.arrays[layer.node.input[2]].reshape(-1))
        smallest: Floats = bias / (np.float32(_LARGEST_BIAS) * self.ranges[layer.node.input[0]].scale)
        return smallest

    def graph(self, kept_float: Collection[str]) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
        """Return the model with some layers in float32, and the values of its initializers."""
        return build(self.backbone, plan(self.backbone, kept_float), self.ranges, self.rounded)

    def file(self, kept_float: Collection[str]) -> tuple[Explainer, onnx.ModelProto, dict[str, NDArray[Any]]]:
        """Write a temporary file with some layers in float32, and return its explainer, model and initializers."""
        model, arrays = self.graph(kept_float)
        outputs = [value.name for value in model.graph.output]
        metadata = derived_metadata(self.source, outputs, model.graph, arrays)
        path = self.folder / "candidate.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        write_model(path, copy, metadata, arrays)
        return Explainer(path, providers=["cpu"], threads=self.float32.threads), model, arrays

    def first_layers(self) -> list[int]:
        """Return numbers of first layers to try in float32, in order.

        A number is tried if behind these layers fewer values are converted to 8 bits than one layer later, and, from
        2 layers on, not more than one layer earlier. 0 is tried unless the first of the other numbers is as fast: the
        images then need no conversion, and onnxruntime computes convolutions of few channels hardly faster in 8 bits.
        """
        layers = self.backbone.layers
        names = [layer.name for layer in layers]
        counts = range(min(_MOST_FIRST + 2, len(layers)))
        plans = [plan(self.backbone, names[:count]) for count in counts]
        converted = [list(one.ranged.keys() - one.computed) for one in plans]
        wanted = list(dict.fromkeys([*names, *(name for part in converted for name in part)]))
        [values] = tensor_values(self.backbone, wanted, self.pixels[:1], self.threads)
        sizes = [sum(values[name].size for name in part) for part in converted]
        outputs = np.array([values[name].size for name in names])
        products = outputs * [layer.weights[0].size for layer in layers]
        narrow = [
            count
            for count in counts[1:-1]
            if sizes[count] < sizes[count + 1] and (count == 1 or sizes[count] <= sizes[count - 1])
        ]
        cheap = bool(narrow) and products[: narrow[0]].sum() <= _CHEAP_PRODUCTS * outputs[: narrow[0]].sum()
        return narrow if cheap else [0, *narrow]

    def ranking(self) -> list[str]:
        """Return all layers, first the one that changes the target layer's output most when it alone is in 8 bits."""
        layers = [layer.name for layer in self.backbone.layers]
        pixels = self.pixels[:_RANKING_IMAGES]
        expected = self._activations(self.backbone, pixels)
        errors = {}
        for i, name in enumerate(layers):
            model, arrays = self.graph([other for other in layers if other != name])
            found = self._activations(Backbone(model, arrays, frozenset(), ()), pixels)
            errors[name] = float(np.square(found - expected).sum())
            self.progress("comparing layers", i + 1, len(layers))
        return sorted(layers, key=lambda name: -errors[name])

    def _activations(self, backbone: Backbone, pixels: Floats) -> Floats:
        """Return the output of the target layer for images."""
        found = tensor_values(backbone, [contract.ACTIVATIONS], pixels, self.threads)
        return np.concatenate([values[contract.ACTIVATIONS] for values in found])


def search(candidates: Candidates, count: int | None, target: float) -> tuple[tuple[str, ...], tuple[Trade, ...]]:
    """Choose the layers that stay in float32.

    Layers at the beginning are tried first, because a layer between others in 8 bits takes much longer in float32: its
    input and output are converted.

    Args:
        candidates: The candidates.
        count: Number of layers that cost most, or None for the first choice that reaches the target.
        target: Drift to reach on the calibration images. If none does, the choice with the smallest drift is taken.

    Returns:
        Names of the layers, and the measured choices if the number was not given.
    """
    if count is not None:
        return tuple(candidates.ranking()[:count]) if count else (), ()
    trades: list[Trade] = []
    drifts: list[tuple[float, list[str]]] = []
    first = candidates.first_layers()
    others = len(candidates.backbone.layers) - first[-1]
    most = len(first) + sum(count < others for count in FURTHER_COUNTS)
    for kept in _choices(candidates, first):
        small, _, _ = candidates.file(kept)
        drift = measure_drift(candidates.float32, small, candidates.pixels, (1,))
        speed = drift.speed[0].float32_ms / drift.speed[0].int8_ms if drift.speed else None
        trades.append(Trade(len(kept), drift.correlation_median, drift.correlation_p5, speed))
        drifts.append((1.0 if drift.value is None else drift.value, kept))
        candidates.progress("choosing layers in float32", len(trades), most)
        if drifts[-1][0] <= target:
            break
    return tuple(min(drifts, key=lambda one: one[0])[1]), tuple(trades)


def _choices(candidates: Candidates, counts: Sequence[int]) -> Iterator[list[str]]:
    """Yield lists of layers to keep in float32, each longer than the one before: first layers, then others, too."""
    names = [layer.name for layer in candidates.backbone.layers]
    for count in counts:
        yield names[:count]
    first = names[: counts[-1]]
    others = [name for name in candidates.ranking() if name not in first]
    for count in FURTHER_COUNTS:
        if count < len(others):
            yield first + others[:count]
