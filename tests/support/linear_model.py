"""A linear classifier, for which metrics can be computed by hand: logits = weights @ pixels + bias.

With `squared`, logits are weights @ pixels ** 2 + bias instead.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seewhy import Explainer
from seewhy.contract import checksum
from seewhy.contract import constants as contract
from seewhy.contract.metadata import Preprocessing
from support.tiny_model import Tiny

NORMALISATION = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def linear_explainer(
    path: Path,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    score: str = "softmax",
    normalised: bool = True,
    squared: bool = False,
) -> Explainer:
    """Write the model file and return its explainer.

    `weights` has the shape (classes, Cin, H, W), and `bias` (classes,). The file serves the methods of plain gradients.
    It records the first channels of `NORMALISATION` unless `normalised` is False.
    """
    classes, channels, height, width = weights.shape
    pixels = ["N", channels, height, width]
    stored = {
        "weights": weights.reshape(classes, -1).astype(np.float32),
        "bias": np.zeros(classes, np.float32) if bias is None else bias.astype(np.float32),
        "shape": np.array([-1, channels, height, width], np.int64),
        "zero": np.array(0, np.int64),
        "two": np.array(2, np.float32),
    }
    node, value = helper.make_node, helper.make_tensor_value_info
    change = [node("Mul", ["images", "two"], ["slope"]), node("Mul", ["rows.shaped", "slope"], ["input_gradients"])]
    same = [node("Identity", ["rows.shaped"], ["input_gradients"])]
    graph = helper.make_graph(
        [
            node("Mul", ["images", "images"], ["features"]) if squared else node("Identity", ["images"], ["features"]),
            node("Flatten", ["features"], ["flat"]),
            node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
            node("ArgMax", ["logits"], ["predicted"], axis=1, keepdims=0),
            node("Less", ["targets", "zero"], ["unset"]),
            node("Where", ["unset", "predicted", "targets"], ["chosen"]),
            node("Gather", ["weights", "chosen"], ["rows"], axis=0),
            node("Reshape", ["rows", "shape"], ["rows.shaped"]),
            *(change if squared else same),
        ],
        "linear",
        [value(contract.IMAGES, TensorProto.FLOAT, pixels), value(contract.TARGETS, TensorProto.INT64, ["N"])],
        [
            value(contract.LOGITS, TensorProto.FLOAT, ["N", classes]),
            value(contract.INPUT_GRADIENTS, TensorProto.FLOAT, pixels),
        ],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(
        graph, ir_version=contract.IR_VERSION, opset_imports=[helper.make_opsetid("", contract.OPSET)]
    )
    mean, std = NORMALISATION.mean[:channels], NORMALISATION.std[:channels]
    preprocessing = replace(NORMALISATION, mean=mean, std=std) if normalised else None
    tiny = Tiny((height, width), channels, classes, labels=None, score=score, preprocessing=preprocessing)
    metadata = replace(tiny.metadata(), layer=None)
    helper.set_model_props(model, {**metadata.to_properties(), contract.DIGEST_KEY: contract.DIGEST_PLACEHOLDER})
    onnx.checker.check_model(model)
    path.write_bytes(checksum.seal(model.SerializeToString()))
    return Explainer(path, threads=1)
