"""Tests of `seewhy.runtime.model_file`: files that are missing, not ONNX, damaged, or violate the contract."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from seewhy import Explainer, ModelFileError
from seewhy.contract import constants as contract
from seewhy.runtime.model_file import ModelFile
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import refused, write


def test_read_returns_the_content_of_the_file(model_path: Path, tiny: Tiny) -> None:
    model = ModelFile.read(model_path)
    assert model.metadata == tiny.metadata()
    assert model.outputs == tiny.outputs
    assert model.damage is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"hello, world\n" * 100, "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not an ONNX file"),
        (bytes(1000), "not an ONNX file"),
        (onnx.ModelProto().SerializeToString() + b"\x08\x0a", "not an ONNX file: it has no graph"),
    ],
)
def test_not_onnx(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    refused(path, f"photo.png: {words}")


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "model.onnx", "model.onnx: cannot be read: No such file")
    refused(tmp_path, "is a folder, not a model file")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_no_permission(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_path.read_bytes())
    path.chmod(0)
    refused(path, "cannot be read: Permission denied")


def test_onnx_file_without_metadata(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.proto()
    del model.metadata_props[:]
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    refused(path, "has no SeeWhy metadata; export the network with `seewhy export`")


def test_newer_schema(tmp_path: Path, tiny: Tiny) -> None:
    path = write(tmp_path / "new.onnx", set_property(tiny.proto(), "schema", 4))
    refused(path, "the file has schema 4, but this version of SeeWhy reads schema 3")


def test_truncated_file(model_path: Path, tmp_path: Path) -> None:
    data = model_path.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in {*range(0, len(data), 61), len(data) - 1}:
        path.write_bytes(data[:length])
        refused(path, "cut.onnx: ")


def test_appended_bytes(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "longer.onnx"
    path.write_bytes(model_path.read_bytes() + b"\x7a\x00")  # an unknown field, which protobuf skips
    refused(path, "longer.onnx: ")


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits_are_refused(model_path: Path, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(model_path.read_bytes())
    for position in random.integers(0, len(data), 1 + seed % 3):
        data[position] ^= 1 << int(random.integers(8))
    path = tmp_path / "flipped.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"flipped\.onnx: ") as raised:
        Explainer(path)
    assert "\n" not in str(raised.value)


def test_damaged_weights_are_refused_unless_verify_is_off(model_path: Path, tiny: Tiny, tmp_path: Path) -> None:
    data = model_path.read_bytes()
    weights = tiny.weights()["conv2.weight"].tobytes()
    path = tmp_path / "weights.onnx"
    path.write_bytes(data.replace(weights, bytes(len(weights))))
    refused(path, r"weights\.onnx: damaged or changed since it was exported")
    assert ModelFile.read(path, verify=False).damage is None
    damage = ModelFile.inspect(path).damage
    assert damage is not None and "damaged" in damage


def test_without_a_digest(tmp_path: Path, tiny: Tiny) -> None:
    path = tmp_path / "unsealed.onnx"
    path.write_bytes(set_property(tiny.proto(), "sha256", None).SerializeToString())
    refused(path, r"lacks seewhy\.sha256")
    assert ModelFile.read(path, verify=False).damage is None


def _rename(kind: str, old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        next(value for value in getattr(model.graph, kind) if value.name == old).name = new

    return change


def _dim(kind: str, name: str, axis: int, value: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        found = next(item for item in getattr(model.graph, kind) if item.name == name)
        found.type.tensor_type.shape.dim[axis].dim_value = value

    return change


def _dtype(kind: str, name: str, dtype: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        next(item for item in getattr(model.graph, kind) if item.name == name).type.tensor_type.elem_type = dtype

    return change


def no_layer(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "seewhy.layer").value = "null"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename("output", "logits", "scores"), "no output 'logits'"),
        (_rename("input", "images", "x"), "no input 'images'"),
        (_rename("input", "targets", "class"), "has an input 'class'"),
        (_dim("input", "images", 0, 1), r"input images must have shape \(N, 3, 12, 16\), not \(1, 3, 12, 16\)"),
        (_dim("input", "images", 2, 13), r"input images .* not \(N, 3, 13, 16\)"),
        (_dim("output", "logits", 1, 7), r"output logits must have shape \(N, 6\), not \(N, 7\)"),
        (_dim("output", "gradients", 0, 4), r"output gradients .* not \(4, 5, 6, 8\)"),
        (_dtype("input", "targets", TensorProto.INT32), "input targets must be INT64, not INT32"),
        (_dtype("output", "activations", TensorProto.FLOAT16), "output activations must be FLOAT, not FLOAT16"),
        (lambda model: model.graph.output[0].type.tensor_type.shape.dim.pop(), r"output logits .* not \(N\)"),
        (lambda model: set_property(model, "labels", ["cat", "dog"]), "2 labels for 6 classes"),
        (no_layer, "has the output activations, but the metadata names no target layer"),
        (
            lambda model: set_property(
                model,
                "preprocessing",
                {
                    "resize": "squash",
                    "size": None,
                    "interpolation": "box",
                    "crop": False,
                    "mean": [0.5],
                    "std": [0.5],
                    "channel_order": "RGB",
                },
            ),
            "1 means for 3 channels",
        ),
    ],
)
def test_violation_of_the_contract(
    tmp_path: Path, tiny: Tiny, change: Callable[[onnx.ModelProto], object], words: str
) -> None:
    model = tiny.proto()
    change(model)
    refused(write(tmp_path / "odd.onnx", model), f"odd.onnx: .*{words}")


def test_graph_that_onnxruntime_refuses(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.proto()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "NoSuchOperator"
    explainer = Explainer(write(tmp_path / "odd.onnx", model))
    with pytest.raises(ModelFileError, match=r"odd\.onnx: onnxruntime \S+ cannot load it: ") as raised:
        explainer.explain(np.zeros((1, 3, 12, 16), np.float32))
    assert "\n" not in str(raised.value)


# Content that the exporter never writes.


def _function(model: onnx.ModelProto) -> None:
    """Add a model-local function whose constant is in a file that the metadata does not name."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    function = onnx.helper.make_function(
        "local",
        "AddSecret",
        ["x"],
        ["y"],
        [
            onnx.helper.make_node("Constant", [], ["t"], value=tensor),
            onnx.helper.make_node("Add", ["x", "t"], ["y"]),
        ],
        [onnx.helper.make_opsetid("", contract.OPSET)],
    )
    model.functions.append(function)
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.output[0] = "plain"
    model.graph.node.append(onnx.helper.make_node("AddSecret", ["plain"], ["logits"], domain="local"))


def _if(model: onnx.ModelProto) -> None:
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["plain"], ["same"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.output[0] = "plain"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(
        onnx.helper.make_node("If", ["yes"], ["logits"], name="choice", then_branch=branch, else_branch=branch)
    )


def _foreign_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").domain = "com.microsoft"


def _foreign_operator_set(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("org.example", 1))


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "t"


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 2**62


def _scattered_sum(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        onnx.helper.make_node("ScatterND", ["a", "b", "c"], ["d"], name="sum", reduction="add"),
    )


def _repeated_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])


def _repeated_key(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="seewhy.score", value='"none"')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_function, "contains model-local functions, which the exporter never writes"),
        (_if, r"contains a graph inside its node 'choice' \(If\), which the exporter never writes"),
        (_foreign_operator, r"contains operators of the domain 'com\.microsoft', which"),
        (_foreign_operator_set, r"contains operators of the domain 'org\.example', which"),
        (_training, "contains training graphs, which"),
        (_scattered_sum, r"contains a reduction in its node 'sum' \(ScatterND\), which"),
        (_opset, "uses an opset that does not exist"),
        (_repeated_weight, r"has two weights called 'conv1\.weight'"),
        (_repeated_key, r"the metadata gives seewhy\.score twice"),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_content_that_the_exporter_never_writes_is_refused(
    tmp_path: Path, tiny: Tiny, change: Callable[[onnx.ModelProto], None], words: str, verify: bool
) -> None:
    """The hashes are correct, so the file is refused for its content."""
    model = tiny.proto()
    change(model)
    (tmp_path / "secret.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    refused(write(tmp_path / "odd.onnx", model), rf"odd\.onnx: {words}", verify)


@pytest.mark.parametrize("pipe", [True, False])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, pipe: bool) -> None:
    path = tmp_path / "pipe" if pipe else Path("/dev/zero")
    if pipe:
        os.mkfifo(path)
    refused(path, f"cannot be read: it is a {'pipe' if pipe else 'device'}, not a regular file")


def test_the_hash_is_that_of_the_bytes_that_were_parsed(tmp_path: Path, tiny: Tiny) -> None:
    """This holds even if the file is later replaced by one of the same size and modification time."""
    path = tiny.save(tmp_path / "a.onnx")
    expected, times = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat()
    explainer = Explainer(path, threads=1)
    tiny.save(path, seed=1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert explainer.sha256 == expected != hashlib.sha256(path.read_bytes()).hexdigest()
    assert Explainer(path, threads=1, verify=False).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_contract_names_are_what_the_tests_assume() -> None:
    assert contract.INPUTS == ("images", "targets")


# Errors that fuzzing found.


def test_names_that_are_not_utf_8(tmp_path: Path, tiny: Tiny) -> None:
    """protobuf returns such names as bytes, and onnxruntime prints them."""
    data = tiny.proto().SerializeToString()
    for old, new in [
        (b"conv1.weight", b"conv1.we\xffght"),
        (b"guided.p1.flat", b"\xe5uided.p1.flat"),
        (b"seewhy.model", b"seewhy.m\xf8del"),
        (b"tabby, tabby cat", b"tabby, tabb\xff cat"),
        (b"\x12\x01N", b"\x12\x01\xff"),
        (b"ConvTranspose", b"ConvTranspos\xe9"),
        (b"kernel_shape", b"kernel_shap\xe9"),
    ]:
        assert old in data
        (tmp_path / "odd.onnx").write_bytes(data.replace(old, new))
        refused(tmp_path / "odd.onnx", "damaged: a name in it is not UTF-8", verify=False)


def test_unknown_types_and_long_shapes(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.proto()
    model.graph.input[0].type.tensor_type.elem_type = 99
    refused(write(tmp_path / "odd.onnx", model), "input images must be FLOAT, not of the unknown type 99")
    model = tiny.proto()
    model.graph.output[0].type.tensor_type.shape.dim.add(dim_param="a\nb" * 10_000)
    with pytest.raises(ModelFileError, match=r"must have shape \(N, 6\), not \(N, 6, a\\nb") as raised:
        ModelFile.read(write(tmp_path / "odd.onnx", model))
    assert len(str(raised.value)) < 400
    model = tiny.proto()
    next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight").data_type = 99
    explainer = Explainer(write(tmp_path / "odd.onnx", model), threads=1)
    with pytest.raises(ModelFileError, match="onnxruntime .* cannot load it"):
        explainer.explain(np.zeros((1, 3, 12, 16), np.float32))


def test_messages_of_onnxruntime_are_escaped_and_shortened(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.proto()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "\x1b[2J" + "x" * 10_000
    with pytest.raises(ModelFileError, match=r"cannot load it: .*\\x1b\[2J") as raised:
        Explainer(write(tmp_path / "odd.onnx", model), threads=1).explain(np.zeros((1, 3, 12, 16), np.float32))
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1000
