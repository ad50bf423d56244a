"""Small ONNX models built node by node, and their outputs in onnxruntime and after import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from seewhy_export.sources.onnx_import.loader import load_onnx
from seewhy_export.sources.source import Source, SourceRequest

Array = NDArray[Any]


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> NDArray[np.float32]:
    """Return uniform random numbers from `low` to `high`."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    """Return a node of a graph."""
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def make_model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array] | None = None,
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    opset: int = 17,
    outputs: Sequence[str] = ("out",),
    element_type: int = TensorProto.FLOAT,
    images: str = "x",
) -> onnx.ModelProto:
    """Return a model with the input `images` and the outputs `outputs`, whose shapes are not declared."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(images, element_type, list(shape))],
        [helper.make_tensor_value_info(name, element_type, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset > 20 else 8)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model and return its path."""
    onnx.save(model, path)
    return path


def original(path: Path, images: Array, output: str | None = None) -> Array:
    """Return the output of the model file in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (value,) = session.run([output or session.get_outputs()[0].name], {session.get_inputs()[0].name: images})
    return value


def classifier(opset: int = 17, batch: int | str = "N", classes: int = 5, size: int = 12) -> onnx.ModelProto:
    """Return a classifier as exporters write it: convolution, ReLU, pool, convolution, ReLU, mean and linear."""
    constants = {
        "conv1.weight": random(8, 3, 3, 3, seed=1),
        "conv1.bias": random(8, seed=2),
        "conv2.weight": random(10, 8, 3, 3, seed=3),
        "conv2.bias": random(10, seed=4),
        "fc.weight": random(classes, 10, seed=5),
        "fc.bias": random(classes, seed=6),
    }
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], pads=[1] * 4, name="/features/features.0/Conv"),
        node("Relu", ["a"], ["b"], name="/features/features.1/Relu"),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2], name="/pool/MaxPool"),
        node("Conv", ["c", "conv2.weight", "conv2.bias"], ["d"], pads=[1] * 4, name="/last/Conv"),
        node("Relu", ["d"], ["e"], name="/act/Relu"),
        node("GlobalAveragePool", ["e"], ["f"]),
        node("Flatten", ["f"], ["g"], axis=1),
        node("Gemm", ["g", "fc.weight", "fc.bias"], ["out"], transB=1, name="/fc/Gemm"),
    ]
    return make_model(nodes, constants, (batch, 3, size, size), opset)


def relu(name: str = "x") -> list[onnx.NodeProto]:
    """Return the nodes of a ReLU and a mean over the map, from `name` to `out`."""
    return [node("Relu", [name], ["r"]), node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["out"])]


def loaded(model: onnx.ModelProto, folder: Path, **request: object) -> Source:
    """Save a model in `folder`, and import it."""
    return load_onnx(str(save(model, folder / "model.onnx")), SourceRequest(**request))  # type: ignore[arg-type]


def answer(source: Source, images: Array) -> Array:
    """Return the output of the imported module."""
    with torch.no_grad():
        return source.module(torch.from_numpy(images)).numpy()


def agrees(source: Source, path: Path, images: Array, expected: Array | None = None) -> None:
    """Assert that the imported module returns `expected`, or the output of onnxruntime if that is not given."""
    exact = original(path, images) if expected is None else expected
    # The sums have a few hundred float32 products, added in another order.
    np.testing.assert_allclose(answer(source, images), exact, rtol=1e-5, atol=1e-5)
