"""The tiny model with a skip path: the mean of each color channel is added to the logits, past the target layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from seewhy.contract import constants as contract
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import write

WEIGHT = np.random.default_rng(5).standard_normal((6, 3)).astype(np.float32)


def skip_logits(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that the skip path adds to the logits, of shape (N, 6), for images (N, 3, H, W)."""
    result: NDArray[np.float64] = images.mean(axis=(2, 3), dtype=np.float64) @ WEIGHT.T.astype(np.float64)
    return result


def proto(separates: bool = False) -> onnx.ModelProto:
    """Return the model. `separates` is the claim of its metadata about the layer, which is false for this model."""
    outputs = (contract.LOGITS, contract.ACTIVATIONS, contract.GRADIENTS)
    model = replace(Tiny(), outputs=outputs).proto()
    graph = model.graph
    last = next(node for node in graph.node if "logits" in node.output)
    index = list(graph.node).index(last)
    last.output[0] = "logits.main"
    graph.initializer.append(numpy_helper.from_array(WEIGHT, "around.weight"))
    for i, node in enumerate(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["colours"]),
            helper.make_node("Flatten", ["colours"], ["colours.flat"]),
            helper.make_node("Gemm", ["colours.flat", "around.weight"], ["around"], transB=1),
            helper.make_node("Add", ["logits.main", "around"], ["logits"]),
        ]
    ):
        graph.node.insert(index + 1 + i, node)
    layer = {"name": "features.4", "chosen": "automatic", "separates": separates}
    return set_property(model, "layer", {**layer, "cut": "activations" if separates else None})


def save(path: Path, separates: bool = False) -> Path:
    """Write the model with its digest and return its path."""
    return write(path, proto(separates))
