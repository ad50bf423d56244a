"""Tests of `seewhy.runtime.graph_pruning`: the nodes that remain compute the same values, and no others remain."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from seewhy.contract import constants as contract
from seewhy.runtime import graph_pruning
from seewhy.runtime.graph_pruning import prune
from support import tiny_model_with_skip
from support.tiny_model import DEFAULT_OUTPUTS, Tiny


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    values = session.run(names, {value.name: feeds[value.name] for value in session.get_inputs()})
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("outputs", [("logits",), ("logits", "gradients", "activations"), DEFAULT_OUTPUTS])
def test_a_pruned_graph_computes_the_same_numbers(outputs: tuple[str, ...]) -> None:
    model = Tiny().proto()
    feeds = {
        "images": np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32),
        "targets": np.array([1, -1]),
    }
    whole, part = run(model, feeds), run(prune(model, outputs), feeds)
    assert tuple(part) == outputs
    for name in outputs:
        # onnxruntime may fuse a smaller graph differently, so the last bits may differ.
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-5, atol=1e-6)


def test_unneeded_nodes_are_removed() -> None:
    model = Tiny().proto()
    before = model.SerializeToString(deterministic=True)
    pruned = prune(model, ["logits"])
    onnx.checker.check_model(pruned, full_check=True)
    assert [node.op_type for node in pruned.graph.node] == [
        *("Conv", "Relu", "MaxPool", "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"),
    ]
    assert [value.name for value in pruned.graph.input] == ["images"]
    assert {tensor.name for tensor in pruned.graph.initializer} == set(Tiny().weights())
    assert (pruned.ir_version, pruned.opset_import[0].version) == (model.ir_version, model.opset_import[0].version)
    assert not pruned.metadata_props
    assert model.SerializeToString(deterministic=True) == before


def test_unused_indices_of_max_pool_are_removed() -> None:
    def pool(outputs: list[str]) -> list[str]:
        pruned = prune(Tiny().proto(), outputs)
        return list(next(node.output for node in pruned.graph.node if node.op_type == "MaxPool"))

    assert pool(["logits", "gradients"]) == ["p1"]
    assert pool(["input_gradients"]) == ["p1", "winners"]


def test_the_numbers_of_needed_outputs_are_those_of_the_operators() -> None:
    for operator, needed in graph_pruning._NEEDED_OUTPUTS.items():
        formal = onnx.defs.get_schema(operator, contract.OPSET).outputs
        optional = [value.option == onnx.defs.OpSchema.FormalParameterOption.Optional for value in formal]
        assert optional == [False] * needed + [True] * (len(formal) - needed)


def test_unknown_output() -> None:
    with pytest.raises(KeyError, match="gradcam_map"):
        prune(Tiny().proto(), ["gradcam_map"])


def test_start_at_a_value() -> None:
    """The head alone computes the same numbers from the target layer's output, without nodes of the backbone."""
    model = Tiny().proto()
    feeds = {
        "images": np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32),
        "targets": np.array([1, -1]),
    }
    whole = run(model, feeds)
    head = prune(model, ["logits", "gradients"], ["activations"])
    onnx.checker.check_model(head, full_check=True)
    assert sorted(value.name for value in head.graph.input) == ["activations", "targets"]
    assert {node.op_type for node in head.graph.node}.isdisjoint({"Conv", "MaxPool", "Relu"})
    part = run(head, {"activations": whole["activations"], "targets": feeds["targets"]})
    for name in part:
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-5, atol=1e-6)


def test_a_given_value_replaces_the_computed_one() -> None:
    """If a path bypasses the given value, the images are needed too."""
    model = tiny_model_with_skip.proto()
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32)
    pruned = prune(model, ["logits"], ["activations"])
    onnx.checker.check_model(pruned, full_check=True)
    assert sorted(value.name for value in pruned.graph.input) == ["activations", "images"]
    found = run(pruned, {"images": images, "activations": np.zeros((2, 5, 6, 8), np.float32)})["logits"]
    np.testing.assert_allclose(
        found, Tiny().weights()["fc.bias"] + tiny_model_with_skip.skip_logits(images), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "limits", [{}, {"start": 0, "end": 1}, {"start": 1}, {"start": -1}, {"end": -2}, {"start": 1, "end": 3}, {"end": 9}]
)
@pytest.mark.parametrize(("source", "name"), [("images", "N"), ("middle", "N"), ("middle", "s77")])
def test_the_shape_of_an_image_needs_no_image(source: str, name: str, limits: dict[str, int]) -> None:
    """Backward passes read the batch size from the shape of the images or of an intermediate value.

    In the latter, PyTorch uses another name for the batch size.
    """
    value = helper.make_tensor_value_info
    shape = ["N", 3, 4, 5]
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["images"], ["middle"]),
            helper.make_node("Shape", [source], ["shape"], **limits),
            helper.make_node("Neg", ["middle"], ["activations"]),
            helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["activations"], ["sum"], keepdims=0),
            helper.make_node("Add", ["numbers", "sum"], ["logits"]),
        ],
        "g",
        [value("images", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, [None]), value("activations", TensorProto.FLOAT, shape)],
        value_info=[value("middle", TensorProto.FLOAT, [name, 3, 4, 5])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    head = prune(model, ["logits"], ["activations"])
    onnx.checker.check_model(head)
    assert [value.name for value in head.graph.input] == ["activations"]
    expected = [7, 3, 4, 5][slice(limits.get("start"), limits.get("end"))]
    assert run(head, {"activations": np.zeros((7, 3, 4, 5), np.float32)})["logits"].tolist() == expected


@pytest.mark.parametrize(("inputs", "outputs"), [([], ["a"]), (["images"], ["a", "b"])])
@pytest.mark.parametrize("used", [False, True])
def test_a_shape_of_another_form_is_left_to_onnxruntime(inputs: list[str], outputs: list[str], used: bool) -> None:
    """Such a node is removed if nothing needs it, and is not changed otherwise."""
    model = Tiny().proto()
    model.graph.node.append(helper.make_node("Shape", inputs, outputs))
    if used:
        model.graph.node.append(helper.make_node("Expand", ["before", "a"], ["logits"]))
        for node in model.graph.node:
            if node.op_type == "Gemm":
                node.output[0] = "before"
    left = [node for node in prune(model, ["logits"], ["activations"]).graph.node if node.op_type == "Shape"]
    assert [(list(node.input), list(node.output)) for node in left] == ([(inputs, outputs)] if used else [])


def test_the_batch_may_be_any_dimension() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["images"], ["middle"], perm=[1, 0, 2]),
            helper.make_node("Shape", ["middle"], ["shape"]),
            helper.make_node("Neg", ["images"], ["activations"]),
            helper.make_node("Transpose", ["activations"], ["turned"], perm=[1, 0, 2]),
            helper.make_node("Expand", ["turned", "shape"], ["logits"]),
        ],
        "g",
        [value("images", TensorProto.FLOAT, ["N", 3, 4])],
        [value("logits", TensorProto.FLOAT, [3, "N", 4]), value("activations", TensorProto.FLOAT, ["N", 3, 4])],
        value_info=[value("middle", TensorProto.FLOAT, [3, "N", 4])],
    )
    head = prune(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]),
        ["logits"],
        ["activations"],
    )
    assert [value.name for value in head.graph.input] == ["activations"]
    assert run(head, {"activations": np.zeros((7, 3, 4), np.float32)})["logits"].shape == (3, 7, 4)


@pytest.mark.parametrize("dims", [None, ["2*s77", 3], ["s77", "u0"], ["N", None]])
def test_an_unknown_shape_is_computed(dims: list[int | str | None] | None) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["images"], ["middle"]),
            helper.make_node("Shape", ["middle"], ["shape"]),
            helper.make_node("Neg", ["middle"], ["activations"]),
            helper.make_node("Expand", ["activations", "shape"], ["logits"]),
        ],
        "g",
        [value("images", TensorProto.FLOAT, ["N", 3])],
        [value("logits", TensorProto.FLOAT, None), value("activations", TensorProto.FLOAT, ["N", 3])],
        value_info=[value("middle", TensorProto.FLOAT, dims)] if dims else [],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    head = prune(model, ["logits"], ["activations"])
    assert sorted(value.name for value in head.graph.input) == ["activations", "images"]


def make(nodes: list[onnx.NodeProto], outputs: list[str], initializers: dict[str, np.ndarray]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [4])],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def test_required_outputs_of_an_operator_stay() -> None:
    model = make(
        [
            helper.make_node("Split", ["x"], ["a", "b"], num_outputs=2),
            helper.make_node("Relu", ["a"], ["y"]),
            helper.make_node("Neg", ["b"], ["z"]),
        ],
        ["y", "z"],
        {},
    )
    pruned = prune(model, ["y"])
    assert list(pruned.graph.node[0].output) == ["a", "b"]
    assert run(pruned, {"x": np.array([-1, 2, 3, 4], np.float32)})["y"].tolist() == [0, 2]


def test_values_that_a_subgraph_reads_stay() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["outer", "shift"], ["sum"])],
        "then",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)],
    )
    passing = helper.make_graph(
        [helper.make_node("Identity", ["outer"], ["same"])],
        "else",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    model = make(
        [
            helper.make_node("Relu", ["x"], ["outer"]),
            helper.make_node("Exp", ["x"], ["useless"]),
            helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=passing),
        ],
        ["y", "useless"],
        {"yes": np.array(True), "shift": np.array([10], np.float32), "unused": np.array([1], np.float32)},
    )
    pruned = prune(model, ["y"])
    assert [node.op_type for node in pruned.graph.node] == ["Relu", "If"]
    assert {tensor.name for tensor in pruned.graph.initializer} == {"yes", "shift"}
    assert run(pruned, {"x": np.array([-1, 0, 1, 2], np.float32)})["y"].tolist() == [10, 10, 11, 12]
