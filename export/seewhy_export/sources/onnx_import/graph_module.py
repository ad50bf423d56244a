"""An ONNX graph as a PyTorch module: one child a node, so that layers have names and messages can point at them."""

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
from seewhy_export.sources.onnx_import.reshaping import SHAPES
from seewhy_export.sources.onnx_import.shape_arithmetic import KNOWN, run_known
from seewhy_export.sources.onnx_import.tensors import tensor_value
from seewhy_export.sources.onnx_import.values import (
    LARGEST,
    At,
    Known,
    NeedsTensor,
    Operator,
    Run,
    Unsupported,
    Value,
    is_known,
    tensor,
)

OPERATORS: dict[str, Operator] = {**ELEMENTWISE, **LAYERS, **SHAPES}

_OF_SHAPES = ("Shape", "Size", "ConstantOfShape", "Range")
_SCORES = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax, "Sigmoid": lambda x, dim: torch.sigmoid(x)}
_SHAPE_ONLY = ("Identity", "Flatten", "Reshape", "Squeeze", "Cast", "Dropout")
_FEW = 4
"""Floating point constants of so few elements may be scales of a Resize; more of them are weights."""


class OnnxNode(nn.Module):
    """One operator with its attributes."""

    def __init__(self, at: At, where: str, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.at = at
        self.where = where
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *values: Value | None) -> Any:
        """One value, or a list of them where the node has several outputs.

        Raises:
            ExportError: the operator has no conversion in this form.
        """
        try:
            return self._run(values)
        except ExportError:
            raise
        except Unsupported as error:
            raise ExportError(f"{self.where} cannot be converted: {error}") from error
        except Exception as error:
            raise ExportError(f"{self.where} cannot be run by PyTorch: {one_line(error)}") from error

    def _run(self, values: tuple[Value | None, ...]) -> Any:
        at = self.at
        if at.operation in KNOWN and all(value is None or is_known(value) for value in values):
            try:
                found = run_known(at, list(values))  # type: ignore[arg-type]
                return found if len(self.outputs) > 1 else found[0]
            except NeedsTensor:
                if at.operation not in OPERATORS:
                    raise
        first = values[0] if values else None
        if is_known(first) and at.operation not in _OF_SHAPES and all(v is None or is_known(v) for v in values):
            values = (tensor(values[0], at), *values[1:])  # type: ignore[arg-type]
        result = OPERATORS[at.operation](at, *values)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(results) < len(self.outputs):
            raise Unsupported(f"its output {self.outputs[len(results)]!r}")
        shape = tuple(results[0].shape)
        if at.file_output is not None and len(shape) != len(at.file_output):
            raise Unsupported("a number of dimensions that depends on the number of images")
        return results if len(self.outputs) > 1 else results[0]


class OnnxModule(nn.Module):
    """A file's graph from images to the chosen output, for any number of images.

    Takes images (N, C, H, W) whatever the file's layout, returns (N, classes). A score (softmax, sigmoid) at the end
    of the graph is the last thing that it computes.

    Raises:
        ExportError: the file uses operators that cannot be converted, or fixes the number of images in a way that
            cannot be undone.
    """

    def __init__(self, file: OnnxFile, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.path = file.path
        self.input = file.input
        self.output = file.output
        self.run_of_nodes = Run(batch=file.input.batch or 1)
        self.known: dict[str, Known] = {}
        self.weights = nn.Module()
        self.stored: dict[str, str] = {}
        self.order: list[str] = []
        self.layer_names: dict[str, str] = {}
        self.final: str | None = None
        self.folded = 0
        # Weights may be computed of stored ones in several steps: widened, transposed, and so on.
        self.most_folded = LARGEST + 8 * sum(array.size for array in file.constants.values())
        for name, array in file.constants.items():
            self._store(name, array)
        self._build(file)
        self._fuse_linear()
        shape = self._measure(channels, size)
        self._move_score_last()
        self._check_batches(channels, size, shape)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return self._finish(self._evaluate(images))

    def _finish(self, y: Tensor) -> Tensor:
        y = y.flatten(1) if y.dim() > 2 else y
        return y if self.final is None else _SCORES[self.final](y, dim=1)

    def _evaluate(self, images: Tensor, record: bool = False) -> Tensor:
        self.run_of_nodes.dtype, self.run_of_nodes.steps = images.dtype, 0
        values: dict[str, Any] = {self.input.name: images.permute(0, 2, 3, 1) if self.input.channels_last else images}
        uses = Counter(name for node in self._nodes() for name in node.inputs)
        uses[self.output] += 1
        outer: dict[str, int] = {}
        for node in self._nodes():
            given = [None if name == "" else self._value(name, values) for name in node.inputs]
            node.at.outer = max([outer.get(name, 1) for name in node.inputs], default=1)
            result = node(*given)
            outer.update(dict.fromkeys(node.outputs, node.at.outer))
            results = result if len(node.outputs) > 1 else [result]
            if record:
                _record(node, given, results)
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
        if name in values:
            return values[name]  # type: ignore[no-any-return]
        if name in self.stored:
            return getattr(self.weights, self.stored[name])  # type: ignore[no-any-return]
        if name in self.known:
            return self.known[name]
        raise ExportError(f"{self.path}: nothing computes the value {name!r}")

    def _nodes(self) -> list[OnnxNode]:
        return [getattr(self, name) for name in self.order]

    # Building

    def _store(self, name: str, value: Value) -> None:
        """Keep a constant: weights as a buffer, everything else as what is known."""
        array = value.numpy() if isinstance(value, Tensor) else value
        if array.dtype.kind != "f" or array.dtype == object or (array.size <= _FEW and array.ndim < 2):
            self.known[name] = array.astype(np.float32) if array.dtype == np.float16 else array
            return
        self.stored[name] = f"weight_{len(self.stored)}"
        self.weights.register_buffer(self.stored[name], torch.from_numpy(array.astype(np.float32)))

    def _build(self, file: OnnxFile) -> None:
        wanted = {name for node in file.nodes for name in node.input} | {file.output}
        for proto in file.nodes:
            attributes = _attributes(file, proto)
            if proto.op_type == "Constant":
                self._store(proto.output[0], _constant(file, proto, attributes))
                continue
            outputs = list(proto.output)
            while len(outputs) > 1 and outputs[-1] not in wanted:
                outputs.pop()
            at = At(proto.op_type, file.opset, attributes, len(outputs), self.run_of_nodes)
            node = OnnxNode(at, file.where(proto), list(proto.input), outputs)
            if all(name == "" or name in self.known or name in self.stored for name in node.inputs):
                self._fold(node)
            else:
                self._add(node, node_name(proto), outputs)

    def _fold(self, node: OnnxNode) -> None:
        """Compute what does not depend on the images once."""
        given = [None if name == "" else self._value(name, {}) for name in node.inputs]
        with torch.no_grad():
            exact = node.at.operation in KNOWN and all(value is None or is_known(value) for value in given)
            if not exact or node.at.operation in _OF_SHAPES:
                with _on_shapes_alone():
                    _check_size(node, node(*given))
            result = node(*given)
        results = result if len(node.outputs) > 1 else [result]
        self.folded += sum(math.prod(value.shape) for value in results)
        if self.folded > self.most_folded:
            raise ExportError(
                f"{node.where}: the file computes constants of {self.folded} elements, and {self.most_folded} are the "
                f"most"
            )
        for name, value in zip(node.outputs, results, strict=False):
            self._store(name, value)

    def _add(self, node: OnnxNode, label: str, aliases: list[str]) -> None:
        name = re.sub(r"\W+", "_", label, flags=re.ASCII).strip("_") or node.at.operation
        name = f"node_{name}" if name[0].isdigit() else name
        while hasattr(self, name):
            name += "_"
        self.add_module(name, node)
        self.order.append(name)
        self.layer_names.update(dict.fromkeys([*aliases, label], name))

    def _fuse_linear(self) -> None:
        """Make a Linear of each Gemm or MatMul with constant weights, and of the Add of a bias behind it."""
        consumers: dict[str, list[OnnxNode]] = {}
        for node in self._nodes():
            for name in node.inputs:
                consumers.setdefault(name, []).append(node)
        dropped = set()
        for node in self._nodes():
            weight = self._linear_weight(node)
            if weight is None:
                continue
            behind = consumers.get(node.outputs[0], [])
            inputs = [node.inputs[0], f"{node.inputs[1]} for {node.outputs[0]}", *node.inputs[2:]]
            added = [name for other in behind for name in other.inputs if name != node.outputs[0]]
            if len(inputs) == 2 and [other.at.operation for other in behind] == ["Add"] and len(added) == 1:
                if node.outputs[0] != self.output and self._size(added[0]) == (weight.shape[0],):
                    inputs.append(added[0])
                    node.outputs = behind[0].outputs
                    dropped.add(id(behind[0]))
            self._store(inputs[1], weight)
            node.inputs, node.at.operation = inputs, "Linear"
        self.order = [name for name in self.order if id(getattr(self, name)) not in dropped]

    def _size(self, name: str) -> tuple[int, ...] | None:
        value = self._value(name, {}) if name in self.stored or name in self.known else None
        return None if value is None else tuple(value.shape)

    def _linear_weight(self, node: OnnxNode) -> Tensor | None:
        """(out, in), where the node is such a product."""
        get = node.at.get
        if node.at.operation not in ("Gemm", "MatMul") or node.inputs[1] not in self.stored:
            return None
        if get("transA", 0) or get("alpha", 1.0) != 1 or get("beta", 1.0) != 1:
            return None
        weight = self._value(node.inputs[1], {})
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            return None
        weight = weight if get("transB", 0) else weight.T.contiguous()
        return None if bias and self._size(bias) != (weight.shape[0],) else weight

    # Checking

    def _measure(self, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Run the graph on shapes alone, for the file's own batch, and return the output's shape."""
        images = (self.run_of_nodes.batch, channels, *size)
        if math.prod(images) > LARGEST:
            listed = "x".join(map(str, images))
            raise ExportError(f"{self.path}: takes images of {listed}, and {LARGEST} elements are the most")
        with _on_shapes_alone():
            y = self._evaluate(torch.empty(images), record=True)
        shape, batch = tuple(int(length) for length in y.shape), self.run_of_nodes.batch
        if len(shape) < 2 or shape[0] != batch or math.prod(shape[2:]) != 1 or not y.is_floating_point():
            raise ExportError(
                f"{self.path}: the output {self.output!r} has shape {shape} and type {str(y.dtype)[6:]} for {batch} "
                f"images, not (N, classes) of floating point; choose the logits with --head"
            )
        return shape

    def _check_batches(self, channels: int, size: tuple[int, int], shape: tuple[int, ...]) -> None:
        batch = self.run_of_nodes.batch + 2
        try:
            with _on_shapes_alone():
                y = self(torch.empty(batch, channels, *size))
        except ExportError as error:
            raise ExportError(f"{error}; it is made for {self.run_of_nodes.batch} images at a time") from error
        if tuple(y.shape) != (batch, shape[1]):
            raise ExportError(
                f"{self.path}: gives {tuple(y.shape)} for {batch} images; it is made for {batch - 2} at a time"
            )

    def _move_score_last(self) -> None:
        """Take a final score out of the graph, and compute it behind what only reshapes it."""
        producers = {name: node for node in self._nodes() for name in node.outputs}
        node = producers.get(self.output)
        while node is not None and node.at.operation in _SHAPE_ONLY:
            node = producers.get(node.inputs[0])
        uses = Counter(name for other in self._nodes() for name in other.inputs)
        if node is None or node.at.operation not in _SCORES or uses[node.outputs[0]] > 1:
            return
        shape = node.at.file_output
        axis = node.at.get("axis", -1 if node.at.opset >= 13 else 1)
        if shape is None or len(shape) < 2 or math.prod(shape[2:]) != 1:
            return
        if node.at.operation != "Sigmoid" and axis % len(shape) != 1:
            return
        self.final = node.at.operation
        node.at.operation = "Identity"


@contextmanager
def _on_shapes_alone() -> Iterator[None]:
    """Operators compute shapes and allocate nothing."""
    # It prints a traceback for each operator that fails, and our message says which did.
    logger = logging.getLogger(FAKE_TENSOR_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), quiet():
            yield
    finally:
        logger.setLevel(level)


def _record(node: OnnxNode, given: list[Value | None], results: list[Value]) -> None:
    """Remember the shapes of a run for the file's own batch."""
    _check_size(node, results)
    node.at.file_inputs = [None if value is None else tuple(map(int, value.shape)) for value in given]
    node.at.file_output = tuple(map(int, results[0].shape))


def _check_size(node: OnnxNode, result: Any) -> None:
    for value in result if isinstance(result, (tuple, list)) else [result]:
        if math.prod(value.shape) > LARGEST:
            raise ExportError(f"{node.where} makes {math.prod(value.shape)} elements, more than {LARGEST}")


def refuse_unknown(file: OnnxFile) -> None:
    """Check that each operator has a conversion, in some form at least.

    Raises:
        ExportError: some have none; it names them.
    """
    convertible = ({"Constant"} | set(OPERATORS) | set(KNOWN)) - {"Linear"}
    unknown: dict[str, str] = {}
    for node in file.nodes:
        own = node.domain in ("", "ai.onnx")
        if not own or node.op_type not in convertible:
            unknown.setdefault(node.op_type if own else f"{node.domain}.{node.op_type}", node_name(node))
    if unknown:
        listed = first_few([f"{operator} (node {name!r})" for operator, name in unknown.items()], most=5)
        raise ExportError(f"{file.path}: uses operators that cannot be converted: {listed}")


def _attributes(file: OnnxFile, node: NodeProto) -> dict[str, Any]:
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {
        name: tensor_value(file.path, value) if isinstance(value, TensorProto) else value
        for name, value in found.items()
    }


def _constant(file: OnnxFile, node: NodeProto, attributes: dict[str, Any]) -> Known:
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for name, value in attributes.items():
        if name == "value":
            return value  # type: ignore[no-any-return]
        if name in types:
            return np.array(value, types[name])
    raise ExportError(f"{file.where(node)} holds {', '.join(attributes) or 'nothing'}, not numbers")
