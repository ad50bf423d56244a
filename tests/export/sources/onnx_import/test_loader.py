"""Tests of `seewhy_export.sources.onnx_import.loader`: accepted files give a network that agrees with onnxruntime."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import seewhy
from seewhy.cli.main import main
from seewhy.errors import ExportError
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.exporter import count_rectifiers
from seewhy_export.sources.onnx_import.loader import load_onnx
from seewhy_export.sources.source import SourceRequest
from support.exporting.networks import branches
from support.exporting.onnx_models import (
    agrees,
    answer,
    classifier,
    loaded,
    make_model,
    node,
    original,
    random,
    relu,
    save,
)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20, 22])
@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_a_classifier(opset: int, batch: int | str, tmp_path: Path) -> None:
    source = loaded(classifier(opset, batch), tmp_path)
    assert (source.name, source.image_size, source.channels) == ("model", (12, 12), 3)
    assert ("at a time" in " ".join(source.notes)) == (batch != "N")
    images = random(4, 3, 12, 12)
    agrees(source, tmp_path / "model.onnx", images if batch != 1 else images[:1])
    assert answer(source, random(3, 3, 12, 12)).shape == (3, 5)


def test_the_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(classifier(batch=1), tmp_path / "cats.onnx")
    Path("labels.json").write_text('["a", "b", "c", "d", "e"]')
    arguments = "export cats.onnx --labels labels.json --mean 0.5 --std 0.25 --layer /act/Relu"
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 0, done.output
    assert "note:         converted from cats.onnx; its output differs from onnxruntime's by" in done.output
    assert "note:         the ONNX file takes one image at a time; the exported file takes any number" in done.output
    assert "target layer: act_Relu (10 maps of 6x6)" in done.output
    assert "rectifiers:   2 of 2 guided (2 relu)" in done.output and "class_weights" in done.output
    explainer = seewhy.Explainer("cats.seewhy.onnx")
    assert explainer.metadata.model.source == "cats.onnx" and explainer.labels == ("a", "b", "c", "d", "e")
    images = random(3, 3, 12, 12)
    result = explainer.explain(images, method="cam")
    exact = np.concatenate([original(Path("cats.onnx"), image[None]) for image in images])
    np.testing.assert_allclose(result.logits, exact, rtol=1e-5, atol=1e-5)
    # Compute CAM independently, from the weights in the file.
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load("cats.onnx").graph.initializer}
    model = onnx.load("cats.onnx")
    model.graph.output.append(helper.make_empty_tensor_value_info("e"))
    save(model, Path("inner.onnx"))
    maps = np.concatenate([original(Path("inner.onnx"), image[None], "e") for image in images])
    cam = np.einsum("nc,nchw->nhw", weights["fc.weight"][result.targets], maps)
    np.testing.assert_allclose(result.maps, cam, rtol=1e-4, atol=1e-5)
    again = CliRunner().invoke(main, ["export", "cats.seewhy.onnx"])
    assert (
        again.exit_code == 2
        and "is already a SeeWhy model file; explain images with: seewhy explain cats.seewhy.onnx" in again.output
    )
    onto = CliRunner().invoke(main, ["export", "cats.onnx", "-o", "cats.onnx"])
    assert (
        onto.exit_code == 2 and "cats.onnx: is the source itself; choose another file to write with -o" in onto.output
    )


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_files_that_pytorch_exports(dynamo: bool, fixed: bool, tmp_path: Path) -> None:
    network = branches()
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = None if fixed else ({0: torch.export.Dim.DYNAMIC},)
            example = torch.zeros(1 if fixed else 2, 3, 32, 24)
            torch.onnx.export(network, (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        else:
            axes = {} if fixed else {"input": {0: "N"}, "output": {0: "N"}}
            names = {"input_names": ["input"], "output_names": ["output"]}
            torch.onnx.export(network, (torch.zeros(1, 3, 32, 24),), path, dynamo=False, dynamic_axes=axes, **names)
    source = load_onnx(str(path), SourceRequest())
    images = torch.from_numpy(random(3, 3, 32, 24)).requires_grad_(True)
    exact = network(images)
    found = source.module(images)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    ours, theirs = (torch.autograd.grad(y[:, 2].sum(), images)[0] for y in (found, exact))
    # A rounding difference may switch a rectifier. With this noise, none switches.
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_final_score(tmp_path: Path) -> None:
    for operator, axis in (("Softmax", 1), ("Sigmoid", None), ("LogSoftmax", -1)):
        model = classifier(opset=11)
        model.graph.node[-1].output[0] = "logits"
        options = {} if axis is None else {"axis": axis}
        model.graph.node.append(node(operator, ["logits"], ["out"], **options))
        source = loaded(model, tmp_path)
        agrees(source, tmp_path / "model.onnx", random(2, 3, 12, 12))
        assert source.module.final_score == operator
    seewhy_file = tmp_path / "out.onnx"
    arguments = ["export", str(tmp_path / "model.onnx"), "-o", str(seewhy_file), "--no-verify", "--no-preprocessing"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "the network ends in softmax; its input is exported as logits" in done.output


def test_score_before_the_last_reshape(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("GlobalAveragePool", ["a"], ["b"]),
        node("Softmax", ["b"], ["c"]),
        node("Flatten", ["c"], ["out"]),
    ]
    model = make_model(nodes, {"w": random(4, 3, 3, 3)}, opset=11)
    source = loaded(model, tmp_path)
    assert source.module.final_score == "Softmax"
    agrees(source, tmp_path / "model.onnx", random(2, 3, 8, 8))


def test_channels_last(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node.insert(0, node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 12, 12, 3]))
    source = loaded(model, tmp_path)
    assert "(N, H, W, C)" in source.notes[-1]
    images = random(2, 3, 12, 12)
    agrees(source, tmp_path / "model.onnx", images, original(tmp_path / "model.onnx", images.transpose(0, 2, 3, 1)))


def test_several_outputs(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node.append(node("Neg", ["out"], ["other"]))
    model.graph.node.append(node("ArgMax", ["out"], ["class"], axis=1))
    for name in ("other", "class"):
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    with pytest.raises(ExportError, match="has several outputs: out, other, class; choose the logits with --head"):
        loaded(model, tmp_path)
    images = random(2, 3, 12, 12)
    for head, name in (("other", "other"), (0, "out"), (1, "other")):
        agrees(
            loaded(model, tmp_path, head=head),
            tmp_path / "model.onnx",
            images,
            original(tmp_path / "model.onnx", images, name),
        )
    # The head may also be a value inside the graph.
    inner = loaded(model, tmp_path, head="g")
    assert answer(inner, images).shape == (2, 10)
    with pytest.raises(ExportError, match="head must be an index below 3, not 3; the outputs are out, other, class"):
        loaded(model, tmp_path, head=3)
    with pytest.raises(ExportError, match=r"unknown output '999'\. The outputs are"):
        loaded(model, tmp_path, head="999")
    with pytest.raises(ExportError, match=r"unknown output 'othre'\. Did you mean 'other'\? The outputs are"):
        loaded(model, tmp_path, head="othre")
    with pytest.raises(ExportError, match=r"output 'class' must be .* \(N, classes\), not int64 of shape \(1, 1\)"):
        loaded(model, tmp_path, head="class")


def test_open_sizes(tmp_path: Path) -> None:
    model = classifier()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"]))
    with pytest.raises(ExportError, match="does not define the image size; give --size"):
        loaded(model, tmp_path)
    source = loaded(model, tmp_path, image_size=(10, 14))
    assert source.image_size == (10, 14)
    agrees(source, tmp_path / "model.onnx", random(2, 3, 10, 14))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C", 12, 12]))
    with pytest.raises(ExportError, match="does not define the number of channels; give --channels"):
        loaded(model, tmp_path)
    assert loaded(model, tmp_path, channels=3).channels == 3


def test_half_precision(tmp_path: Path) -> None:
    model = classifier()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    source = loaded(model, tmp_path)
    images = random(2, 3, 12, 12)
    exact = original(tmp_path / "model.onnx", images.astype(np.float16)).astype(np.float32)
    # Half precision has 11 significant bits, and some hundred roundings add up here.
    np.testing.assert_allclose(answer(source, images), exact, rtol=2e-2, atol=2e-2)


def test_external_weights(tmp_path: Path) -> None:
    model = classifier()
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    images = random(2, 3, 12, 12)
    agrees(load_onnx(str(path), SourceRequest()), path, images)
    assert answer(load_onnx(str(path), SourceRequest(head="g")), images).shape == (2, 10)
    (tmp_path / "model.data").rename(tmp_path / "moved")
    with pytest.raises(ExportError, match="its weights are in 'model.data', which does not exist"):
        load_onnx(str(path), SourceRequest())
    (tmp_path / "model.data").write_bytes(b"short")
    with pytest.raises(ExportError, match="model.onnx: "):
        load_onnx(str(path), SourceRequest())


@pytest.mark.parametrize(("weights", "output"), [("b.onnx.data", "b.onnx"), ("b.onnx", "b.onnx"), ("w.data", "w.data")])
def test_weights_of_the_source_are_not_overwritten(weights: str, output: str, tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "a.onnx", save_as_external_data=True, location=weights, size_threshold=0)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    arguments = ["export", str(tmp_path / "a.onnx"), "-o", str(tmp_path / output), "--no-verify"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and f"{weights}: holds weights of " in done.output
    assert len(done.output.splitlines()) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("location", ["../secret.data", "/etc/hostname", "sub/../../secret.data", "link.data", ""])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(bytes(4000))
    (folder / "link.data").symlink_to(tmp_path / "secret.data")
    (folder / "sub").mkdir()
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(ExportError, match="keeps weights in .*, outside its own folder; move them next to it"):
        loaded(model, folder)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 1, 1, 1), (8, 1, 1)])
@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([node("Max", ["a", "zero"], ["r"])], "maximum"),
        ([node("Max", ["zero", "a"], ["r"])], "maximum"),
        ([node("Greater", ["a", "zero"], ["m"]), node("Where", ["m", "a", "zero"], ["r"])], "where"),
    ],
)
def test_rectifiers_written_with_a_zero(
    nodes: list[onnx.NodeProto], kind: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    constants = {"w": random(8, 3, 3, 3), "zero": np.zeros(shape, np.float32)}
    model = make_model([node("Conv", ["x", "w"], ["a"]), *nodes, *relu()[1:]], constants, ("N", 3, 8, 6))
    forward = trace_forward(loaded(model, tmp_path).module, (8, 6), 3, None)
    assert count_rectifiers(forward, None).kinds == {kind: 1}


def test_names_of_any_kind(tmp_path: Path) -> None:
    """Names from the file become neither attributes nor paths, and do not reach the terminal."""
    model = classifier()
    names = ["forward", "../../evil", "0", "weights", "a b\u202e", "a_b", "", "\x1b[31m"]
    for proto, name in zip(model.graph.node, names, strict=True):
        proto.name = name
    source = loaded(model, tmp_path)
    agrees(source, tmp_path / "model.onnx", random(2, 3, 12, 12))
    children = [name for name, _ in source.module.named_children()]
    assert all(name.isidentifier() and name.isascii() for name in children) and len(set(children)) == len(children)
    assert source.layer_names["../../evil"] in children
    assert sorted(os.listdir(tmp_path)) == ["model.onnx"]
