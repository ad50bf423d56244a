"""Tests of ONNX files that are refused as sources with an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seewhy.errors import ExportError
from seewhy_export.sources.registry import load_source
from support.exporting.onnx_models import agrees, classifier, loaded, make_model, node, random, relu


def quantised() -> onnx.ModelProto:
    there = node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quant")
    back = node("DequantizeLinear", ["q", "s", "z"], ["y"])
    return make_model([there, back, *relu("y")], {"s": np.float32(0.1), "z": np.int8(0)})


def custom() -> onnx.ModelProto:
    model = make_model([helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft"), *relu("y")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def branching() -> onnx.ModelProto:
    arms = [
        helper.make_graph([node(op, ["x"], ["arm"])], op, [], [helper.make_tensor_value_info("arm", 1, None)])
        for op in ("Relu", "Neg")
    ]
    condition = node("If", ["c"], ["y"], then_branch=arms[0], else_branch=arms[1], name="choice")
    return make_model([condition, *relu("y")], {"c": np.array(True)})


def of_type(element_type: int) -> onnx.ModelProto:
    model = make_model([node("Cast", ["x"], ["y"], to=1), *relu("y")])
    model.graph.input[0].type.tensor_type.elem_type = element_type
    return model


def two_inputs() -> onnx.ModelProto:
    model = make_model([node("Add", ["x", "z"], ["y"]), *relu("y")])
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3, 8, 8]))
    return model


def mixed_batch() -> onnx.ModelProto:
    """Return a model that averages over the batch, which is not a classifier of single images."""
    nodes = [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1), *relu("y")]
    return make_model(nodes, shape=(1, 3, 8, 8), opset=13)


def bomb() -> onnx.ModelProto:
    nodes = [node("Tile", ["x", "t"], ["y"], name="boom"), *relu("y")]
    return make_model(nodes, {"t": np.array([1, 1, 20000, 20000])})


def constant_bomb() -> onnx.ModelProto:
    nodes = [
        node("ConstantOfShape", ["s"], ["c"], name="boom"),
        node("ReduceMean", ["c"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
        *relu("y"),
    ]
    return make_model(nodes, {"s": np.array([1 << 20, 1 << 20])})


def growing_numbers() -> onnx.ModelProto:
    """Return a model whose nodes square a constant again and again. The last one would have 2**40 digits."""
    squares = [node("Mul", [f"k{i}", f"k{i}"], [f"k{i + 1}"], name=f"square{i}") for i in range(42)]
    nodes = [*squares, node("Cast", ["k42"], ["k"], to=1), node("Mul", ["x", "k"], ["y"]), *relu("y")]
    return make_model(nodes, {"k0": np.array(3)})


def growing_batch_sizes() -> onnx.ModelProto:
    """Return a model that squares the batch size again and again."""
    model = growing_numbers()
    model.graph.node.insert(0, node("Shape", ["x"], ["shape"]))
    model.graph.node.insert(1, node("Gather", ["shape", "zero"], ["k0"]))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(0), "zero"))
    return model


def growing_product() -> onnx.ModelProto:
    nodes = [
        node("Expand", ["k", "many"], ["ks"]),
        node("ReduceProd", ["ks"], ["all"], keepdims=0, name="product"),
        node("Cast", ["all"], ["c"], to=1),
        node("Mul", ["x", "c"], ["y"]),
        *relu("y"),
    ]
    return make_model(nodes, {"k": np.array([2**62 - 1]), "many": np.array([1 << 20])})


def unconnected() -> onnx.ModelProto:
    return make_model([node("Neg", ["c"], ["out"])], {"c": random(2, 5)})


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "quantised": (quantised, r"cannot be converted: QuantizeLinear \(node 'quant'\)"),
    "custom": (custom, r"cannot be converted: com.microsoft.FusedConv \(node 'y'\)"),
    "branching": (branching, r"has nodes that run subgraphs on a condition: If \(node 'choice'\)"),
    "bytes": (lambda: of_type(TensorProto.UINT8), "the input 'x' is UINT8; it must be floating point"),
    "two inputs": (two_inputs, "must have one input, the images; it has x, z"),
    "vectors": (lambda: make_model(relu(), shape=("N", 12)), "the input 'x' has 2 dimensions; it must be images"),
    "old": (lambda: classifier(opset=6), "opset must be between 7 and .*, not 6"),
    "mixed batch": (mixed_batch, "written for batches of 1 images|depends on the number of images"),
    "bomb": (bomb, r"node 'boom' \(Tile\) computes \d+ elements; the limit is"),
    "constant bomb": (constant_bomb, r"node 'boom' \(ConstantOfShape\) computes \d+ elements; the limit is"),
    "numbers": (
        growing_numbers,
        r"node 'square5' \(Mul\) cannot be converted: an integer of more than 64 bits",
    ),
    "batches": (
        growing_batch_sizes,
        r"node 'square5' \(Mul\) cannot be converted: an integer of more than 64 bits",
    ),
    "product": (
        growing_product,
        r"node 'product' \(ReduceProd\) cannot be converted: an integer of more than 64 bits",
    ),
    "no images": (unconnected, "must have one input, the images; it has none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ExportError, match=message) as caught:
        loaded(make(), tmp_path)
    assert "\n" not in str(caught.value) and "model.onnx" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "none"}, "--weights none: an ONNX file holds its own weights"),
        ({"weights": "best.pth"}, "--weights best.pth: an ONNX file holds its own weights"),
        ({"class_count": 4}, "--classes 4: an ONNX file has a fixed number of classes"),
        ({"image_size": (24, 24)}, "--size 24x24: .* is fixed to 12x12"),
        ({"channels": 1}, "--channels 1: .* takes 3"),
    ],
)
def test_options_that_contradict_the_file(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        loaded(classifier(), tmp_path, **options)


def test_files_that_are_not_onnx(tmp_path: Path) -> None:
    whole = classifier().SerializeToString()
    contents = {"text": b"not a model", "empty": b"", "zeros": bytes(100), "cut": whole[: len(whole) // 2]}
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ExportError, match=f"{name}.onnx: ") as caught:
            load_source(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="missing.onnx: cannot be read: No such file"):
        load_source(str(tmp_path / "missing.onnx"))
    with pytest.raises(ExportError, match="folder.onnx: cannot be read: it is a folder"):
        (tmp_path / "folder.onnx").mkdir()
        load_source(str(tmp_path / "folder.onnx"))


def test_damage_that_onnx_does_not_detect(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), np.nan, "f4"), "conv1.weight"))
    with pytest.raises(ExportError, match="onnxruntime computes NaN or infinity from it on noise; it is damaged"):
        loaded(model, tmp_path)
    content = classifier().SerializeToString().replace(b"/act/Relu", b"/act/\xff\xfelu")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="a name in it is not UTF-8"):
        load_source(str(tmp_path / "model.onnx"))


def test_a_flipped_bit_is_detected_or_harmless(tmp_path: Path) -> None:
    """A damaged file gives an error of one line, or a network that agrees with onnxruntime on the damaged file."""
    whole = bytearray(classifier(classes=3).SerializeToString())
    random_places = np.random.default_rng(0).integers(0, len(whole), 60)
    for place in random_places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place) % 8
        path = tmp_path / "damaged.onnx"
        path.write_bytes(damaged)
        try:
            source = load_source(str(path))
        except ExportError as error:
            assert "\n" not in str(error)
            continue
        images = random(2, 3, *source.image_size)
        agrees(source, path, images)


def test_a_wrong_conversion_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy_export.sources.onnx_import import graph_module

    monkeypatch.setitem(graph_module.OPERATORS, "Relu", lambda node, x: x.clamp(min=0.01))
    with pytest.raises(ExportError, match="output differs from the original's by .* so it was not converted rightly"):
        loaded(classifier(), tmp_path)
