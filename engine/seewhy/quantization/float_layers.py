"""Find the layers that cost the maps most in 8 bits, and how many of them have to stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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

COUNTS = (0, 1, 2, 3, 4, 6, 8)
"""Numbers of layers in float32 that are tried, in order."""
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

    Args:
        candidates: The candidates.
        count: Number of layers, or None for the smallest of `COUNTS` that reaches the target.
        target: Drift to reach on the calibration images. If none does, the number with the smallest drift is taken.

    Returns:
        Names of the layers, those that cost most first, and the measured choices if the number was not given.
    """
    if count is not None:
        return tuple(candidates.ranking()[:count]) if count else (), ()
    ranking: list[str] = []
    trades: list[Trade] = []
    drifts: list[float] = []
    counts = [number for number in COUNTS if number < len(candidates.backbone.layers)]
    for number in counts:
        if number and not ranking:
            ranking = candidates.ranking()
        small, _, _ = candidates.file(ranking[:number])
        drift = measure_drift(candidates.float32, small, candidates.pixels, (1,))
        speed = drift.speed[0].float32_ms / drift.speed[0].int8_ms if drift.speed else None
        trades.append(Trade(number, drift.correlation_median, drift.correlation_p5, speed))
        drifts.append(1.0 if drift.value is None else drift.value)
        candidates.progress("choosing layers in float32", len(trades), len(counts))
        if drifts[-1] <= target:
            break
    chosen = counts[int(np.argmin(drifts))]
    return tuple(ranking[:chosen]), tuple(trades)
