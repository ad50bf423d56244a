"""An ONNX graph as a PyTorch module with one child module per node.

Layers therefore have names, and error messages can name the node that fails.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.messages import first_few, one_line, quiet
from seewhy_export._shared.torch_internals import FAKE_TENSOR_LOGGER, FakeTensorMode
from seewhy_export.sources.onnx_import.elementwise import ELEMENTWISE
from seewhy_export.sources.onnx_import.file_reading import OnnxFile, node_name
from seewhy_export.sources.onnx_import.layers import LAYERS
from seewhy_export.sources.onnx_import.reshaping import RESHAPING
from seewhy_export.sources.onnx_import.shape_arithmetic import KNOWN_OPERATORS, apply_known
from seewhy_export.sources.onnx_import.tensors import tensor_value
from seewhy_export.sources.onnx_import.values import (
    MAX_ELEMENTS,
    ForwardState,
    KnownValue,
    NeedsTensor,
    NodeInfo,
    Operator,
    Unsupported,
    Value,
    as_tensor,
    is_known,
)

OPERATORS: dict[str, Operator] = {**ELEMENTWISE, **LAYERS, **RESHAPING}

_SHAPE_OPERATORS = ("Shape", "Size", "ConstantOfShape", "Range")
_SCORE_FUNCTIONS = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
    "Sigmoid": lambda x, dim: torch.sigmoid(x),
}
_RESHAPING_OPERATORS = ("Identity", "Flatten", "Reshape", "Squeeze", "Cast", "Dropout")
_MAX_SCALE_ELEMENTS = 4
"""Largest number of elements of a floating-point constant that may be the scales of a Resize. Others are weights."""


class OnnxNode(nn.Module):
    """One operator with its attributes."""

    def __init__(self, info: NodeInfo, description: str, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.info = info
        self.description = description
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *values: Value | None) -> Any:
        """Run the operator.

        Args:
            *values: Inputs of the node, in its order. An input that the node leaves out is None.

        Returns:
            One value, or a list of values if the node has several outputs.

        Raises:
            ExportError: If the operator cannot be converted in this form.
        """
        try:
            return self._run(values)
        except ExportError:
            raise
        except Unsupported as error:
            raise ExportError(f"{self.description} cannot be converted: {error}") from error
        except Exception as error:
            raise ExportError(f"{self.description} cannot be run by PyTorch: {one_line(error)}") from error

    def _run(self, values: tuple[Value | None, ...]) -> Any:
        """Apply the operator for known values if it can be used, and else the operator for tensors."""
        node = self.info
        if node.operation in KNOWN_OPERATORS and all(value is None or is_known(value) for value in values):
            try:
                found = apply_known(node, list(values))  # type: ignore[arg-type]
                return found if len(self.outputs) > 1 else found[0]
            except NeedsTensor:
                if node.operation not in OPERATORS:
                    raise
        first = values[0] if values else None
        if is_known(first) and node.operation not in _SHAPE_OPERATORS and all(v is None or is_known(v) for v in values):
            values = (as_tensor(values[0], node), *values[1:])  # type: ignore[arg-type]
        result = OPERATORS[node.operation](node, *values)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(results) < len(self.outputs):
            raise Unsupported(f"the output {self.outputs[len(results)]!r}")
        shape = tuple(results[0].shape)
        if node.file_output_shape is not None and len(shape) != len(node.file_output_shape):
            raise Unsupported("a number of dimensions that depends on the number of images")
        return results if len(self.outputs) > 1 else results[0]


class OnnxModule(nn.Module):
    """The graph of an ONNX file from the images to the chosen output, for any batch size.

    The module takes images (N, C, H, W) in any layout of the file, and returns (N, class count). If the graph ends in a
    score (softmax, sigmoid), that score is the last operation.

    Args:
        file: The pruned ONNX file.
        channels: Number of image channels.
        size: (H, W) of the images in pixels.

    Raises:
        ExportError: If an operator cannot be converted, or the file fixes the batch size in a way that cannot be
            generalised.
    """

    def __init__(self, file: OnnxFile, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.path = file.path
        self.input = file.input
        self.output = file.output
        self.state = ForwardState(batch=file.input.batch or 1)
        self.known_values: dict[str, KnownValue] = {}
        self.weights = nn.Module()
        self.weight_names: dict[str, str] = {}
        norms = [node for node in file.nodes if node.op_type == "BatchNormalization"]
        self.statistics = {name for norm in norms for name in norm.input[3:]}
        self.order: list[str] = []
        self.layer_names: dict[str, str] = {}
        self.final_score: str | None = None
        self.folded_elements = 0
        # The file may compute weights from stored ones in several steps: cast to a wider type, transpose, and so on.
        self.max_folded_elements = MAX_ELEMENTS + 8 * sum(array.size for array in file.constants.values())
        for name, array in file.constants.items():
            self._store(name, array)
        self._build(file)
        self._fuse_linear()
        shape = self._infer_output_shape(channels, size)
        self._move_score_last()
        self._check_batches(channels, size, shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return the output (N, class count), float32, for images (N, C, H, W), float32."""
        return self._to_logits(self._evaluate(images))

    def _to_logits(self, y: Tensor) -> Tensor:
        """Return the value of the output as (N, class count), after the final score."""
        y = y.flatten(1) if y.dim() > 2 else y
        return y if self.final_score is None else _SCORE_FUNCTIONS[self.final_score](y, dim=1)

    def _evaluate(self, images: Tensor, record: bool = False) -> Tensor:
        """Run all nodes, and return the value of the output. With `record`, the nodes remember the shapes."""
        self.state.dtype, self.state.computed_elements = images.dtype, 0
        values: dict[str, Any] = {self.input.name: images.permute(0, 2, 3, 1) if self.input.channels_last else images}
        uses = Counter(name for node in self._nodes() for name in node.inputs)
        uses[self.output] += 1
        outer: dict[str, int] = {}
        for node in self._nodes():
            given = [None if name == "" else self._value(name, values) for name in node.inputs]
            node.info.outer_factor = max([outer.get(name, 1) for name in node.inputs], default=1)
            result = node(*given)
            outer.update(dict.fromkeys(node.outputs, node.info.outer_factor))
            results = result if len(node.outputs) > 1 else [result]
            if record:
                _record_shapes(node, given, results)
            values.update(zip(node.outputs, results, strict=False))
            for name in node.inputs:
                uses[name] -= 1
                if not uses[name]:
                    values.pop(name, None)
        found = self._value(self.output, values)
        if not isinstance(found, Tensor):
            raise ExportError(f"{self.path}: the output {self.output!r} does not depend on the images")
        return found

    def _value(self, name: str, values: dict[str, Any]) -> Value:
        """Return a computed value or a constant by its name."""
        if name in values:
            return values[name]  # type: ignore[no-any-return]
        if name in self.weight_names:
            return getattr(self.weights, self.weight_names[name])  # type: ignore[no-any-return]
        if name in self.known_values:
            return self.known_values[name]
        raise ExportError(f"{self.path}: no node computes the value {name!r}")

    def _nodes(self) -> list[OnnxNode]:
        """Return the nodes in the order of execution."""
        return [getattr(self, name) for name in self.order]

    def _store(self, name: str, value: Value) -> None:
        """Store a constant: weights as parameters, everything else as a known value.

        The statistics of batch norms are buffers, and so are zeros, which may belong to a rectifier max(x, 0).
        """
        array = value.numpy() if isinstance(value, Tensor) else value
        if array.dtype.kind != "f" or array.dtype == object or (array.size <= _MAX_SCALE_ELEMENTS and array.ndim < 2):
            self.known_values[name] = array.astype(np.float32) if array.dtype == np.float16 else array
            return
        self.weight_names[name] = f"weight_{len(self.weight_names)}"
        tensor = torch.from_numpy(array.astype(np.float32))
        if name in self.statistics or not array.any():
            self.weights.register_buffer(self.weight_names[name], tensor)
        else:
            self.weights.register_parameter(self.weight_names[name], nn.Parameter(tensor, requires_grad=False))

    def _build(self, file: OnnxFile) -> None:
        """Add a child module for each node, and compute the nodes that do not depend on the images."""
        used = {name for node in file.nodes for name in node.input} | {file.output}
        for proto in file.nodes:
            attributes = _attributes(file, proto)
            if proto.op_type == "Constant":
                self._store(proto.output[0], _constant(file, proto, attributes))
                continue
            outputs = list(proto.output)
            while len(outputs) > 1 and outputs[-1] not in used:
                outputs.pop()
            info = NodeInfo(proto.op_type, file.opset, attributes, len(outputs), self.state)
            node = OnnxNode(info, file.describe(proto), list(proto.input), outputs)
            if all(name == "" or name in self.known_values or name in self.weight_names for name in node.inputs):
                self._fold(node)
            else:
                self._add(node, node_name(proto), outputs)

    def _fold(self, node: OnnxNode) -> None:
        """Compute a node that does not depend on the images, and store its results."""
        given = [None if name == "" else self._value(name, {}) for name in node.inputs]
        with torch.no_grad():
            exact = node.info.operation in KNOWN_OPERATORS and all(value is None or is_known(value) for value in given)
            if not exact or node.info.operation in _SHAPE_OPERATORS:
                with _shapes_only():
                    _check_size(node, node(*given))
            result = node(*given)
        results = result if len(node.outputs) > 1 else [result]
        self.folded_elements += sum(math.prod(value.shape) for value in results)
        if self.folded_elements > self.max_folded_elements:
            raise ExportError(
                f"{node.description}: the file computes constants of {self.folded_elements} elements; the limit is "
                f"{self.max_folded_elements}"
            )
        for name, value in zip(node.outputs, results, strict=False):
            self._store(name, value)

    def _add(self, node: OnnxNode, label: str, aliases: list[str]) -> None:
        """Add a node as a child module, under a valid module name that resembles its label."""
        name = re.sub(r"\W+", "_", label, flags=re.ASCII).strip("_") or node.info.operation
        name = f"node_{name}" if name[0].isdigit() else name
        while hasattr(self, name):
            name += "_"
        self.add_module(name, node)
        self.order.append(name)
        self.layer_names.update(dict.fromkeys([*aliases, label], name))

    def _fuse_linear(self) -> None:
        """Replace each Gemm or MatMul with constant weights, and the Add of a bias after it, by a Linear."""
        consumers: dict[str, list[OnnxNode]] = {}
        for node in self._nodes():
            for name in node.inputs:
                consumers.setdefault(name, []).append(node)
        dropped = set()
        for node in self._nodes():
            weight = self._linear_weight(node)
            if weight is None:
                continue
            following = consumers.get(node.outputs[0], [])
            inputs = [node.inputs[0], f"{node.inputs[1]} for {node.outputs[0]}", *node.inputs[2:]]
            added = [name for other in following for name in other.inputs if name != node.outputs[0]]
            if len(inputs) == 2 and [other.info.operation for other in following] == ["Add"] and len(added) == 1:
                if node.outputs[0] != self.output and self._constant_shape(added[0]) == (weight.shape[0],):
                    inputs.append(added[0])
                    node.outputs = following[0].outputs
                    dropped.add(id(following[0]))
            self._store(inputs[1], weight)
            node.inputs, node.info.operation = inputs, "Linear"
        self.order = [name for name in self.order if id(getattr(self, name)) not in dropped]

    def _constant_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a constant, or None if the value is not constant."""
        value = self._value(name, {}) if name in self.weight_names or name in self.known_values else None
        return None if value is None else tuple(value.shape)

    def _linear_weight(self, node: OnnxNode) -> Tensor | None:
        """Return the weights (out, in) of a node that is a linear layer, or None."""
        get = node.info.get
        if node.info.operation not in ("Gemm", "MatMul") or node.inputs[1] not in self.weight_names:
            return None
        if get("transA", 0) or get("alpha", 1.0) != 1 or get("beta", 1.0) != 1:
            return None
        weight = self._value(node.inputs[1], {})
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            return None
        weight = weight if get("transB", 0) else weight.T.contiguous()
        return None if bias and self._constant_shape(bias) != (weight.shape[0],) else weight

    def _infer_output_shape(self, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the output for the file's own batch size, without computing values."""
        images = (self.state.batch, channels, *size)
        if math.prod(images) > MAX_ELEMENTS:
            listed = "x".join(map(str, images))
            raise ExportError(f"{self.path}: takes images of {listed}; the limit is {MAX_ELEMENTS} elements")
        with _shapes_only():
            y = self._evaluate(torch.empty(images), record=True)
        shape, batch = tuple(int(length) for length in y.shape), self.state.batch
        if len(shape) < 2 or shape[0] != batch or math.prod(shape[2:]) != 1 or not y.is_floating_point():
            raise ExportError(
                f"{self.path}: the output {self.output!r} must be floating point of shape (N, classes), not "
                f"{str(y.dtype)[6:]} of shape {shape} for {batch} images; choose the logits with --head"
            )
        return shape

    def _check_batches(self, channels: int, size: tuple[int, int], shape: tuple[int, ...]) -> None:
        """Check that the module gives the right shape for another batch size."""
        batch = self.state.batch + 2
        try:
            with _shapes_only():
                y = self(torch.empty(batch, channels, *size))
        except ExportError as error:
            raise ExportError(f"{error}; the file is written for batches of {self.state.batch} images") from error
        if tuple(y.shape) != (batch, shape[1]):
            raise ExportError(
                f"{self.path}: the output for {batch} images has shape {tuple(y.shape)}; the file is written for "
                f"batches of {batch - 2} images"
            )

    def _move_score_last(self) -> None:
        """Move a final score to the end, after the nodes that only reshape its result."""
        producers = {name: node for node in self._nodes() for name in node.outputs}
        node = producers.get(self.output)
        while node is not None and node.info.operation in _RESHAPING_OPERATORS:
            node = producers.get(node.inputs[0])
        uses = Counter(name for other in self._nodes() for name in other.inputs)
        if node is None or node.info.operation not in _SCORE_FUNCTIONS or uses[node.outputs[0]] > 1:
            return
        shape = node.info.file_output_shape
        axis = node.info.get("axis", -1 if node.info.opset >= 13 else 1)
        if shape is None or len(shape) < 2 or math.prod(shape[2:]) != 1:
            return
        if node.info.operation != "Sigmoid" and axis % len(shape) != 1:
            return
        self.final_score = node.info.operation
        node.info.operation = "Identity"


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Let operators compute shapes without allocating memory."""
    # PyTorch logs a traceback for each operator that fails. Our error message names the operator.
    logger = logging.getLogger(FAKE_TENSOR_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), quiet():
            yield
    finally:
        logger.setLevel(level)


def _record_shapes(node: OnnxNode, given: list[Value | None], results: list[Value]) -> None:
    """Record the shapes of a node for the file's own batch size."""
    _check_size(node, results)
    node.info.file_input_shapes = [None if value is None else tuple(map(int, value.shape)) for value in given]
    node.info.file_output_shape = tuple(map(int, results[0].shape))


def _check_size(node: OnnxNode, result: Any) -> None:
    """Refuse results with too many elements."""
    for value in result if isinstance(result, (tuple, list)) else [result]:
        if math.prod(value.shape) > MAX_ELEMENTS:
            raise ExportError(
                f"{node.description} computes {math.prod(value.shape)} elements; the limit is {MAX_ELEMENTS}"
            )


def check_operators(file: OnnxFile) -> None:
    """Check that each operator of the file can be converted, at least in some form.

    Args:
        file: The pruned ONNX file.

    Raises:
        ExportError: If some operators cannot. The message names them.
    """
    convertible = ({"Constant"} | set(OPERATORS) | set(KNOWN_OPERATORS)) - {"Linear"}
    unknown: dict[str, str] = {}
    for node in file.nodes:
        own = node.domain in ("", "ai.onnx")
        if not own or node.op_type not in convertible:
            unknown.setdefault(node.op_type if own else f"{node.domain}.{node.op_type}", node_name(node))
    if unknown:
        listed = first_few([f"{operator} (node {name!r})" for operator, name in unknown.items()], most=5)
        raise ExportError(f"{file.path}: uses operators that cannot be converted: {listed}")


def _attributes(file: OnnxFile, node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name, tensors as arrays."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {
        name: tensor_value(file.path, value) if isinstance(value, TensorProto) else value
        for name, value in found.items()
    }


def _constant(file: OnnxFile, node: NodeProto, attributes: dict[str, Any]) -> KnownValue:
    """Return the value of a Constant node."""
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for name, value in attributes.items():
        if name == "value":
            return value  # type: ignore[no-any-return]
        if name in types:
            return np.array(value, types[name])
    raise ExportError(f"{file.describe(node)} must hold numbers, not {', '.join(attributes) or 'nothing'}")
