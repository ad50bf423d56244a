"""A small classifier with a handwritten joint graph, so that the engine's tests need no PyTorch.

    images -> conv 3x3 -> relu -> max pool 2x2 -> conv 3x3 -> relu (the target layer) -> global average -> linear

The backward pass is written by hand as well. `references/methods.py` is an independent implementation in NumPy float64.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from seewhy.contract import checksum
from seewhy.contract import constants as contract
from seewhy.contract.metadata import Layer, Metadata, ModelInfo, Preprocessing, Rectifiers

LABELS = ("tabby, tabby cat", "espresso", "crane", "moped", "crane", "Tiger cat")
DEFAULT_OUTPUTS = tuple(name for name in contract.OUTPUTS if name != contract.GRADCAM_MAP)
# Rule for the gradient of a ReLU -> output that uses it.
RULES = {
    "plain": contract.INPUT_GRADIENTS,
    "guided": contract.GUIDED_GRADIENTS,
    "deconvnet": contract.DECONVNET_GRADIENTS,
}


@dataclass(frozen=True)
class Tiny:
    """Configuration of a tiny model; use `dataclasses.replace` for variants."""

    size: tuple[int, int] = (12, 16)
    channels: int = 3
    classes: int = 6
    seed: int = 0
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    labels: tuple[str, ...] | None = LABELS
    score: str = "softmax"
    preprocessing: Preprocessing | None = field(default_factory=lambda: Preprocessing())

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return random float32 weights for which every rectifier has positive and negative inputs."""
        random = np.random.default_rng(self.seed)

        def draw(*shape: int) -> NDArray[np.float32]:
            return (random.standard_normal(shape) * 0.5).astype(np.float32)

        return {
            "conv1.weight": draw(4, self.channels, 3, 3),
            "conv1.bias": draw(4),
            "conv2.weight": draw(5, 4, 3, 3),
            "conv2.bias": draw(5),
            "fc.weight": draw(self.classes, 5),
            "fc.bias": draw(self.classes),
        }

    def metadata(self) -> Metadata:
        return Metadata(
            model=ModelInfo("tiny", "tests.tiny_model:Tiny", "0f" * 32),
            image_size=self.size,
            channels=self.channels,
            class_count=self.classes,
            labels=self.labels,
            preprocessing=self.preprocessing,
            layer=Layer("features.4", "automatic", True, "activations"),
            score_kind=self.score,
            rectifiers=Rectifiers({"relu": 2}, 2, None, {}),
            parity={"logits": {"noise": {"error": 1e-7, "torch_float32": 2e-7}}},
            versions={"seewhy": "0.1.0", "torch": "2.13.0"},
        )

    def proto(self, weights: dict[str, NDArray[np.float32]] | None = None) -> onnx.ModelProto:
        """Return the ONNX model with metadata and the placeholder for its digest."""
        height, width = self.size
        pixels = ["N", self.channels, height, width]
        maps = ["N", 5, height // 2, width // 2]
        shapes = {
            contract.LOGITS: ["N", self.classes],
            contract.ACTIVATIONS: maps,
            contract.GRADIENTS: maps,
            contract.INPUT_GRADIENTS: pixels,
            contract.GUIDED_GRADIENTS: pixels,
            contract.DECONVNET_GRADIENTS: pixels,
            contract.CLASS_WEIGHTS: ["N", 5],
        }
        constants = {
            "zero": np.array(0, np.int64),
            "zero_float": np.array(0, np.float32),
            "area": np.array((height // 2) * (width // 2), np.float32),
            "flat": np.array([-1], np.int64),
            "last_axes": np.array([2, 3], np.int64),
        }
        stored = {**(self.weights() if weights is None else weights), **constants}
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            _forward() + _head_backward() + [node for rule in RULES for node in _backward(rule)],
            "tiny",
            [value(contract.IMAGES, TensorProto.FLOAT, pixels), value(contract.TARGETS, TensorProto.INT64, ["N"])],
            [value(name, TensorProto.FLOAT, shapes[name]) for name in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in stored.items()],
        )
        model = helper.make_model(
            graph, ir_version=contract.IR_VERSION, opset_imports=[helper.make_opsetid("", contract.OPSET)]
        )
        helper.set_model_props(
            model, {**self.metadata().to_properties(), contract.DIGEST_KEY: contract.DIGEST_PLACEHOLDER}
        )
        return model

    def save(self, path: Path, **changes: Any) -> Path:
        """Write the model file, with `changes` to the fields of this configuration, and return its path."""
        path.write_bytes(checksum.seal(replace(self, **changes).proto().SerializeToString()))
        return path


def load(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file."""
    with Image.open(path) as image:
        return np.array(image)


def set_property(model: onnx.ModelProto, key: str, value: Any) -> onnx.ModelProto:
    """Set one metadata value, which is stored as JSON; None removes the key."""
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != contract.KEY_PREFIX + key}
    if value is not None:
        kept[contract.KEY_PREFIX + key] = json.dumps(value)
    helper.set_model_props(model, kept)
    return model


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=outputs[0], **attributes)


def _forward() -> list[onnx.NodeProto]:
    return [
        _node("Conv", ["images", "conv1.weight", "conv1.bias"], ["c1"], pads=[1, 1, 1, 1]),
        _node("Relu", ["c1"], ["a1"]),
        _node("MaxPool", ["a1"], ["p1", "winners"], kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", ["p1", "conv2.weight", "conv2.bias"], ["c2"], pads=[1, 1, 1, 1]),
        _node("Relu", ["c2"], ["activations"]),
        _node("GlobalAveragePool", ["activations"], ["pooled"]),
        _node("Flatten", ["pooled"], ["features"]),
        _node("Gemm", ["features", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]


def _head_backward() -> list[onnx.NodeProto]:
    return [
        _node("ArgMax", ["logits"], ["predicted"], axis=1, keepdims=0),
        _node("Less", ["targets", "zero"], ["unset"]),
        _node("Where", ["unset", "predicted", "targets"], ["chosen"]),
        _node("Gather", ["fc.weight", "chosen"], ["class_weights"], axis=0),
        _node("Div", ["class_weights", "area"], ["scaled"]),
        _node("Unsqueeze", ["scaled", "last_axes"], ["column"]),
        _node("Shape", ["activations"], ["maps_shape"]),
        _node("Expand", ["column", "maps_shape"], ["gradients"]),
    ]


def _backward(rule: str) -> list[onnx.NodeProto]:
    """Return the backward nodes from the target layer to the image, for one of the RULES."""

    def name(value: str) -> str:
        return f"{rule}.{value}"

    def rectifier(gradient: str, activation: str, result: str) -> list[onnx.NodeProto]:
        if rule == "deconvnet":
            return [_node("Relu", [gradient], [name(result)])]
        passed = [_node("Relu", [gradient], [name(f"{result}.positive")])] if rule == "guided" else []
        gradient = passed[0].output[0] if passed else gradient
        return [
            *passed,
            _node("Greater", [activation, "zero_float"], [name(f"{result}.open")]),
            _node("Where", [name(f"{result}.open"), gradient, "zero_float"], [name(result)]),
        ]

    return [
        *rectifier("gradients", "activations", "g2"),
        _node("ConvTranspose", [name("g2"), "conv2.weight"], [name("p1")], pads=[1, 1, 1, 1]),
        _node("Shape", ["a1"], [name("a1.shape")]),
        _node("Mul", ["a1", "zero_float"], [name("blank")]),
        _node("Reshape", [name("blank"), "flat"], [name("blank.flat")]),
        _node("Reshape", ["winners", "flat"], [name("winners.flat")]),
        _node("Reshape", [name("p1"), "flat"], [name("p1.flat")]),
        # The pooling windows do not overlap, so no position is written twice.
        _node(
            "ScatterElements",
            [name("blank.flat"), name("winners.flat"), name("p1.flat")],
            [name("unpooled.flat")],
            axis=0,
        ),
        _node("Reshape", [name("unpooled.flat"), name("a1.shape")], [name("unpooled")]),
        *rectifier(name("unpooled"), "a1", "g1"),
        _node("ConvTranspose", [name("g1"), "conv1.weight"], [RULES[rule]], pads=[1, 1, 1, 1]),
    ]
