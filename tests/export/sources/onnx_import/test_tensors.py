"""Tests of tensors in ONNX files that claim a wrong size or lie in another file."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from seewhy.errors import ExportError
from seewhy_export.sources.onnx_import import values as onnx_values
from seewhy_export.sources.onnx_import.tensors import tensor_value
from support.exporting.onnx_models import agrees, answer, classifier, loaded, make_model, node, random, relu
from support.exporting.timed_process import in_time

Tensors = Callable[[ModelProto, TensorProto], None]


@contextmanager
def memory(more: int) -> Iterator[None]:
    """Limit this process to `more` bytes of address space beyond what it uses now."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def external(name: str, dims: tuple[int, ...], kind: int = TensorProto.FLOAT, **entries: object) -> TensorProto:
    """Return a tensor with a reference to another file."""
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_bias(tensor: TensorProto) -> ModelProto:
    """Return a model that adds a tensor to the images."""
    model = make_model([node("Add", ["x", tensor.name], ["y"]), *relu("y")])
    model.graph.initializer.append(tensor)
    return model


def test_a_tensor_without_a_length_is_read_by_its_shape(tmp_path: Path) -> None:
    values = random(3, 1, 1)
    with open(tmp_path / "w.data", "wb") as file:
        file.write(bytes(8) + values.tobytes())
        file.truncate(40 * 2**30)
    model = with_bias(external("w", (3, 1, 1), location="w.data", offset=8))
    with memory(2 * 2**30):
        source = loaded(model, tmp_path)
    images = random(2, 3, 8, 8)
    inside = with_bias(numpy_helper.from_array(values, "w"))
    (tmp_path / "inside").mkdir()
    np.testing.assert_array_equal(answer(source, images), answer(loaded(inside, tmp_path / "inside"), images))


@pytest.mark.parametrize(
    ("dims", "kind", "entries", "message"),
    [
        ((3, 1, 1), TensorProto.FLOAT, {"length": 16}, r"length is 16 bytes, but FLOAT of shape \[3, 1, 1\] needs 12"),
        ((3, 1, 1), TensorProto.FLOAT, {"length": 8}, "length is 8 bytes, but .* needs 12"),
        ((3, 1, 1), TensorProto.FLOAT, {"length": 40 * 2**30}, "length is 42949672960 bytes, but .* needs 12"),
        ((3, 1, 1), TensorProto.FLOAT, {"length": "-12"}, "length must be a number of bytes, not '-12'"),
        ((3, 1, 1), TensorProto.FLOAT, {"length": "1e1"}, "length must be a number of bytes, not '1e1'"),
        ((3, 1, 1), TensorProto.FLOAT, {"offset": "-1"}, "offset must be a number of bytes, not '-1'"),
        ((3, 1, 1), TensorProto.FLOAT, {"offset": " 0"}, "offset must be a number of bytes, not ' 0'"),
        ((3, 1, 1), TensorProto.FLOAT, {"offset": "9" * 5000}, "offset must be a number of bytes, not '9.*9'"),
        ((3, 1, 1), TensorProto.FLOAT, {"offset": 90}, "end at byte 102 of 'w.data', which has 100 bytes"),
        ((3, 1, 1), TensorProto.FLOAT, {"offset": 2**62}, "end at byte .* of 'w.data', which has 100 bytes"),
        ((10**10,), TensorProto.FLOAT, {}, "exceeds the limit of 2147483647 bytes for a tensor"),
        ((2**62, 2**62), TensorProto.FLOAT, {}, "exceeds the limit of 2147483647 bytes for a tensor"),
        ((-3, -1, 1), TensorProto.FLOAT, {}, r"their shape \[-3, -1, 1\] has a negative length"),
        ((1,), TensorProto.STRING, {}, "data type is STRING, which does not hold numbers"),
        ((1,), TensorProto.UNDEFINED, {}, "data type is UNDEFINED, which does not hold numbers"),
        ((1,), 99, {}, "data type is 99, which does not hold numbers"),
    ],
)
def test_references_that_contradict_the_shape(
    dims: tuple[int, ...], kind: int, entries: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.data").write_bytes(bytes(100))
    with pytest.raises(ExportError, match=message) as caught:
        loaded(with_bias(external("w", dims, kind, location="w.data", **entries)), tmp_path)
    assert "\n" not in str(caught.value) and "model.onnx: the weights 'w' " in str(caught.value)


KINDS = [
    name
    for name, number in TensorProto.DataType.items()
    if number not in (TensorProto.UNDEFINED, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
]


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_external_tensors_equal_internal_ones(kind: str, count: int, tmp_path: Path) -> None:
    """Every type is read, also those that pack several elements into a byte."""
    values = np.arange(count) % 2
    inside = helper.make_tensor("w", TensorProto.DataType.Value(kind), [count], values, raw=False)
    content = numpy_helper.from_array(numpy_helper.to_array(inside)).raw_data
    (tmp_path / "w.data").write_bytes(b"before" + content + b"behind")
    beside = external("w", (count,), inside.data_type, location="w.data", offset=6)
    try:
        found = tensor_value(tmp_path / "model.onnx", beside)
    except ExportError as error:  # some types have no conversion in either place
        with pytest.raises(ExportError) as caught:
            tensor_value(tmp_path / "model.onnx", inside)
        assert str(caught.value) == str(error) and "not numbers" in str(error)
    else:
        assert found.shape == (count,) and found.astype("f4").tolist() == values.tolist()
    beside = external("w", (count,), inside.data_type, location="w.data", offset=6, length=len(content) + 1)
    with pytest.raises(ExportError, match=f"length is {len(content) + 1} bytes, but {kind} of shape"):
        tensor_value(tmp_path / "model.onnx", beside)


def unused(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def of_an_unused_node(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def in_a_list(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("many", [tensor]))


def in_a_subgraph(model: ModelProto, tensor: TensorProto) -> None:
    arm = helper.make_graph([node("Identity", [tensor.name], ["arm"])], "arm", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["condition"], ["unused"], then_branch=arm, else_branch=arm))


def in_a_function(model: ModelProto, tensor: TensorProto) -> None:
    body = [helper.make_node("Constant", [], ["c"], value=tensor)]
    model.functions.append(helper.make_function("own", "f", [], ["c"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("own", 1))


def sparse(model: ModelProto, tensor: TensorProto) -> None:
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [5]))


def in_training(model: ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


@pytest.mark.parametrize(
    "put", [unused, of_an_unused_node, in_a_list, in_a_subgraph, in_a_function, sparse, in_training]
)
@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.data", "keeps weights in '../secret.data', outside its own folder"),
        ("link.data", "keeps weights in 'link.data', outside its own folder"),
        ("pipe", "its weights are in 'pipe', which cannot be read: it is a pipe, not a regular file"),
        ("loop", "its weights are in 'loop', which cannot be read"),
        ("n" * 5000, "its weights are in 'nnn.*', which cannot be read"),
        ("model.onnx/inner", "its weights are in 'model.onnx/inner', which cannot be read: Not a directory"),
    ],
)
def test_unused_external_weights_are_checked_too(put: Tensors, location: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(bytes(100))
    (folder / "link.data").symlink_to("../secret.data")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    model = classifier()
    put(model, external("w", (3,), location=location))
    with pytest.raises(ExportError, match=message) as caught:
        loaded(model, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT4, TensorProto.FLOAT16])
@pytest.mark.parametrize("dims", [(10**12,), (2**40, 2**40), (-1,), (4,), (10**8,)])
@pytest.mark.parametrize("raw", [True, False])
def test_shapes_without_the_data(kind: int, dims: tuple[int, ...], raw: bool, tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=kind, dims=dims)
    if raw:
        tensor.raw_data = bytes(12)
    model = make_model([node("Cast", ["w"], ["f"], to=1), node("Add", ["x", "f"], ["y"]), *relu("y")])
    model.graph.initializer.append(tensor)
    constant = make_model([helper.make_node("Constant", [], ["w"], value=tensor), *model.graph.node])
    for made in (model, constant):
        with memory(2**30), pytest.raises(ExportError, match="model.onnx: the weights 'w' are ") as caught:
            loaded(made, tmp_path)
        assert "\n" not in str(caught.value)


def doubling(depth: int) -> ModelProto:
    """Return a model with functions that each call the next one twice: 2**depth nodes after inlining."""
    model = make_model([helper.make_node("f0", ["x"], ["y"], domain="own"), *relu("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.opset_import.append(opsets[1])
    for i in range(depth):
        body: list[NodeProto] = [
            helper.make_node(f"f{i + 1}", [a], [b], domain="own") for a, b in (("a", "b"), ("b", "c"))
        ]
        model.functions.append(helper.make_function("own", f"f{i}", ["a"], ["c"], body, opsets))
    last = helper.make_node("Neg", ["a"], ["c"])
    model.functions.append(helper.make_function("own", f"f{depth}", ["a"], ["c"], [last], opsets))
    return model


def recursive() -> ModelProto:
    model = doubling(1)
    model.functions[1].node[0].CopyFrom(helper.make_node("f0", ["a"], ["c"], domain="own"))
    return model


def with_a_large_constant(calls: int) -> ModelProto:
    """Return a model that calls a function with 40 MB of weights repeatedly."""
    model = doubling(0)
    weights = numpy_helper.from_array(np.zeros(10**7, np.float32), "w")
    body = [helper.make_node("Constant", [], ["w"], value=weights), helper.make_node("ReduceMean", ["w"], ["m"])]
    body.append(helper.make_node("Add", ["a", "m"], ["c"]))
    del model.functions[0].node[:]
    model.functions[0].node.extend(body)
    del model.graph.node[0]
    names = ["x", *(f"call{i}" for i in range(calls - 1)), "y"]
    for i in reversed(range(calls)):
        model.graph.node.insert(0, helper.make_node("f0", [names[i]], [names[i + 1]], domain="own"))
    return model


def test_functions_that_grow_exponentially(tmp_path: Path) -> None:
    images = random(2, 3, 8, 8)
    source = loaded(doubling(3), tmp_path)  # applies Neg 8 times, which is the identity
    agrees(source, tmp_path / "model.onnx", images)
    for model, message in {
        "40": (doubling(40), "its functions call each other too often to be inlined"),
        "deep": (doubling(2000), "its function 'f100' calls itself, or calls are nested more than 100 deep"),
        "recursive": (recursive(), "its function 'f0' calls itself, or calls are nested more than 100 deep"),
        "large": (with_a_large_constant(60), "its functions call each other too often"),
    }.values():
        with pytest.raises(ExportError, match=message) as caught:
            loaded(model, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_function_with_external_weights(tmp_path: Path) -> None:
    values = random(3, 1, 1)
    (tmp_path / "w.data").write_bytes(values.tobytes())
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [
        helper.make_node("Constant", [], ["w"], value=external("w", (3, 1, 1), location="w.data")),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    model = make_model([helper.make_node("f", ["x"], ["y"], domain="own"), *relu("y")])
    model.opset_import.append(opsets[1])
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], body, opsets))
    images = random(2, 3, 8, 8)
    agrees(loaded(model, tmp_path), tmp_path / "model.onnx", images)


LATER = [node("Add", ["x", "m"], ["y"]), *relu("y")]
MEAN = [node("Cast", ["c"], ["f"], to=1), node("ReduceMean", ["f"], ["m"], keepdims=0), *LATER]


def chain(value: str, nodes: list[NodeProto]) -> list[NodeProto]:
    """Return nodes that expand a constant to e0, then `nodes`, which lead from e0 to e30, and an output c."""
    return [node("Expand", [value, "s"], ["e0"]), *nodes, node("Identity", ["e30"], ["c"])]


ENORMOUS: dict[str, tuple[list[NodeProto], dict[str, np.ndarray], str]] = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["c"])], {"s": np.array([10**10])}, "the limit is"),
    "Expand": ([node("Expand", ["k", "s"], ["c"])], {"k": np.array([1]), "s": np.array([10**10])}, "elements"),
    "Tile": ([node("Tile", ["k", "s"], ["c"])], {"k": np.array([1]), "s": np.array([10**10])}, "elements"),
    "Range": ([node("Range", ["k", "s", "k"], ["c"])], {"k": np.array(1), "s": np.array(10**10)}, "elements"),
    "Pad": ([node("Pad", ["k", "s"], ["c"])], {"k": np.array([1]), "s": np.array([0, 10**10])}, "the limit is"),
    "Add": (
        [node("Add", ["a", "b"], ["c"])],
        {"a": np.zeros((10**5, 1), np.int64), "b": np.zeros((1, 10**5), np.int64)},
        "10000000000 elements",
    ),
    "Gather": (
        [node("Gather", ["a", "i"], ["c"])],
        {"a": np.zeros((1, 10**5), np.int64), "i": np.zeros(10**5, np.int64)},
        "10000000000 elements",
    ),
    "Concat": (
        [node("Expand", ["k", "s"], ["e"]), node("Concat", ["e"] * 1000, ["c"], axis=0)],
        {"k": np.array([1]), "s": np.array([2**24])},
        "16777216000 elements",
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", ["a", "b"], ["c"], axis=1)],
        {"a": np.zeros((2**23, 1), np.int8), "b": np.ones(4, np.float32)},
        "33554432 elements",
    ),
    "a chain": (
        chain("k", [node("Add", [f"e{i}", "k"], [f"e{i + 1}"]) for i in range(30)]),
        {"k": np.array([1]), "s": np.array([2**16])},
        "more than 1048576 elements of values that do not depend on the images",
    ),
    "weights": (
        chain("w", [node("Neg", [f"e{i}"], [f"e{i + 1}"]) for i in range(30)]),
        {"w": random(1, 8), "s": np.array([2**22, 8])},
        r"the file computes constants of \d+ elements; the limit is \d+",
    ),
}


@pytest.mark.parametrize("name", ENORMOUS)
def test_constants_that_the_file_computes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_values, "MAX_COMPUTED_ELEMENTS", 2**20)  # the real limit takes minutes
    nodes, constants, message = ENORMOUS[name]
    model = make_model([*nodes, *MEAN], constants)
    with memory(6 * 2**30), pytest.raises(ExportError, match=message) as caught:
        loaded(model, tmp_path)
    assert "\n" not in str(caught.value)


def test_unused_enormous_values_are_not_computed(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**10]), "size"))
    model.graph.node.append(node("ConstantOfShape", ["size"], ["enormous"]))
    model.graph.output.append(helper.make_empty_tensor_value_info("enormous"))
    with memory(4 * 2**30):
        source = loaded(model, tmp_path, head=0)
    images = random(2, 3, 12, 12)
    (tmp_path / "plain").mkdir()
    onnx.save(classifier(), tmp_path / "plain" / "model.onnx")
    agrees(source, tmp_path / "plain" / "model.onnx", images)


@pytest.mark.parametrize("shape", [(1, 3, 10**5, 10**5), (10**9, 3, 8, 8), (1, 3, 2**40, 2**40)])
def test_enormous_images(shape: tuple[int, ...], tmp_path: Path) -> None:
    with memory(4 * 2**30), pytest.raises(ExportError, match="takes images of .*; the limit is 268435456 elements"):
        loaded(make_model(relu(), shape=shape), tmp_path)


def test_the_file_must_be_regular_and_not_enormous(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    with open(tmp_path / "sparse.onnx", "wb") as file:
        file.truncate(40 * 2**30)
    refused = in_time(REFUSED_SOURCES, tmp_path / "pipe.onnx", tmp_path / "zero.onnx", tmp_path / "sparse.onnx")
    assert "pipe.onnx: cannot be read: it is a pipe, not a regular file" in refused[0]
    assert "zero.onnx: cannot be read: it is a device, not a regular file" in refused[1]
    assert "sparse.onnx: is not an ONNX file: it has 42949672960 bytes, and the limit is 2147483647" in refused[2]


REFUSED_SOURCES = """
import sys
from seewhy.errors import ExportError
from seewhy_export.sources.registry import load_source
for path in sys.argv[1:]:
    try:
        load_source(path)
    except ExportError as error:
        print(error)
"""
