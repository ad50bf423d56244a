"""Tests of `seewhy.cut` and `seewhy cut`: smaller model files with the same numbers and metadata that is true."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from seewhy import ArgumentError, Explainer, MethodError, OutputError, SeewhyError, cut
from seewhy.contract import constants as contract
from seewhy.methods.built_in import BUILT_IN
from seewhy.methods.method import Method
from seewhy.runtime.model_file import ModelFile
from support.command_line import failed, run
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import external, pixels, write

BY_NAME = {method.name: method for method in BUILT_IN}


def with_finished_map(folder: Path) -> Path:
    """Write the tiny model with the output gradcam_map, and return its path."""
    model = Tiny().proto()
    model.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["gradients"], ["map.weights"]),
            helper.make_node("Mul", ["map.weights", "activations"], ["map.products"]),
            helper.make_node("ReduceSum", ["map.products", "map.axis"], ["map.sum"], keepdims=0),
            helper.make_node("Relu", ["map.sum"], [contract.GRADCAM_MAP]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "map.axis"))
    shape = ["N", 6, 8]
    model.graph.output.append(helper.make_tensor_value_info(contract.GRADCAM_MAP, TensorProto.FLOAT, shape))
    return write(folder / "finished.onnx", model)


def properties(path: Path) -> dict[str, object]:
    """Return the metadata of a model file as JSON values."""
    found = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return {key: value if key == contract.DIGEST_KEY else json.loads(value) for key, value in found.items()}


@pytest.mark.parametrize("method", BUILT_IN, ids=lambda method: method.name)
def test_a_cut_file_gives_the_same_bits(method: Method, model_path: Path, explainer: Explainer, tmp_path: Path) -> None:
    path = cut(model_path, tmp_path / "small.onnx", method.name)
    small = Explainer(path, threads=1)
    images = pixels(2)
    for target in ([3, -1], [[0, 5], [2, 1]]):
        targets = [None, 4] if target == [3, -1] else target
        one, other = (each.explain(images, method.name, target=targets) for each in (small, explainer))
        for name in ("logits", "attributions", "heatmaps", "targets"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert set(small.methods) == {each.name for each in BUILT_IN if set(each.outputs) <= set(method.all_outputs)}


def test_other_methods_are_refused_with_the_name_of_the_original(model_path: Path, tmp_path: Path) -> None:
    small = Explainer(cut(model_path, tmp_path / "small.onnx", ["gradcam"]), threads=1)
    digest = hashlib.sha256(model_path.read_bytes()).hexdigest()
    words = (
        rf"small\.onnx: backprop needs input_gradients, and the file was cut from tiny\.onnx \(SHA-256 {digest[:12]}"
    )
    with pytest.raises(MethodError, match=words):
        small.explain(pixels(1), "backprop")


def test_the_metadata_is_true(model_path: Path, tmp_path: Path) -> None:
    path = cut(model_path, tmp_path / "small.onnx", ["cam"])
    before, after = properties(model_path), properties(path)
    model, original = onnx.load(path), onnx.load(model_path)
    assert [output.name for output in model.graph.output] == ["logits", "activations", "class_weights"]
    assert (model.ir_version, model.opset_import) == (original.ir_version, original.opset_import)
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        kind = TensorProto.DataType.Name(tensor.data_type)
        digest.update(f"{tensor.name}\0{kind}\0{list(values.shape)}\0".encode() + values.tobytes())
    assert after["seewhy.model"] == {**before["seewhy.model"], "weights_sha256": digest.hexdigest()}  # type: ignore[dict-item]
    assert after["seewhy.cut_from"] == {
        "file": "tiny.onnx",
        "sha256": hashlib.sha256(model_path.read_bytes()).hexdigest(),
        "methods": ["cam"],
    }
    changed = {"seewhy.model", "seewhy.cut_from", contract.DIGEST_KEY}
    assert {key: value for key, value in after.items() if key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }
    ModelFile.read(path)  # verifies the digest


def test_parity_of_outputs_that_are_gone_is_dropped(tmp_path: Path) -> None:
    model = Tiny().proto()
    errors = {"noise": {"error": 1e-7, "torch_float32": 2e-7}}
    entry = next(entry for entry in model.metadata_props if entry.key == "seewhy.parity")
    entry.value = json.dumps({"logits": errors, "gradients": errors, "input_gradients": errors})
    small = cut(write(tmp_path / "m.onnx", model), tmp_path / "small.onnx", "backprop")
    assert properties(small)["seewhy.parity"] == {"logits": errors, "input_gradients": errors}
    assert properties(small)["seewhy.layer"] is None


def test_parameters_that_remain_are_listed(tmp_path: Path) -> None:
    groups = [{"module": "fc", "tensors": ["fc.weight", "area"]}, {"module": "features.0", "tensors": ["zero_float"]}]
    whole = write(tmp_path / "m.onnx", set_property(Tiny().proto(), "parameters", groups))
    # The backward pass uses these two constants, and CAM needs only the forward pass.
    small = cut(whole, tmp_path / "small.onnx", "cam")
    assert properties(small)["seewhy.parameters"] == [{"module": "fc", "tensors": ["fc.weight"]}]


def test_a_cut_file_that_is_cut_again_names_the_first_original(model_path: Path, tmp_path: Path) -> None:
    once = cut(model_path, tmp_path / "once.onnx", ["gradcam", "backprop"])
    twice = cut(once, tmp_path / "twice.onnx", ["gradcam"])
    found = properties(twice)["seewhy.cut_from"]
    assert found == {**properties(once)["seewhy.cut_from"], "methods": ["gradcam"]}  # type: ignore[dict-item]


def test_finished_maps_for_other_programs(tmp_path: Path) -> None:
    whole = with_finished_map(tmp_path)
    path = cut(whole, tmp_path / "web.onnx", outputs="gradcam_map")
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["logits", "gradcam_map"]
    images = pixels(2)
    _, finished = session.run(None, {"images": images, "targets": np.array([1, -1])})
    maps = Explainer(whole, threads=1).explain(images, "gradcam", target=[1, None]).maps
    np.testing.assert_allclose(finished, np.maximum(maps, 0), rtol=1e-5, atol=1e-7)
    assert properties(path)["seewhy.layer"] == properties(whole)["seewhy.layer"]
    with pytest.raises(MethodError, match="cut from finished.onnx .* holds finished Grad-CAM maps for other programs"):
        Explainer(path).explain(images, "gradcam")
    assert "methods         none; its output gradcam_map holds finished Grad-CAM maps" in run("inspect", path).stdout


def test_the_logits_alone(model_path: Path, explainer: Explainer, tmp_path: Path) -> None:
    path = cut(model_path, tmp_path / "small.onnx", outputs=["logits"])
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == ["images"]
    np.testing.assert_array_equal(
        Explainer(path, threads=1).predict(pixels(2)).logits, explainer.predict(pixels(2)).logits
    )


# Weights beside the file.


@pytest.mark.parametrize("outside", [False, True])
def test_external_weights(outside: bool, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = external(tmp_path, tiny)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(contract, "SMALLEST_EXTERNAL_TENSOR", 100)
    if outside:
        monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 1000)
    path = cut(whole, tmp_path / "new" / "small.onnx", "gradcam")
    assert sorted(each.name for each in path.parent.iterdir()) == ["small.onnx", "small.onnx.data"][: 1 + outside]
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == before
    path = path.parent.rename(tmp_path / "moved") / path.name
    onnx.checker.check_model(str(path), full_check=True)
    one, other = (Explainer(each, threads=1).explain(pixels(2)) for each in (path, whole))
    np.testing.assert_array_equal(one.maps, other.maps)
    model = onnx.load(path)  # reads the weights beside it by the standard's own rules
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, values in tiny.weights().items():
        np.testing.assert_array_equal(found[name], values)
    recorded = properties(path)["seewhy.external_data"]
    if outside:
        digest = hashlib.sha256((path.parent / "small.onnx.data").read_bytes()).hexdigest()
        assert recorded == {"file": "small.onnx.data", "sha256": digest}
    else:
        assert recorded is None


@pytest.fixture
def outside(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model that was cut, with its weights beside it, and of the original."""
    external(tmp_path, tiny)
    monkeypatch.setattr(contract, "SMALLEST_EXTERNAL_TENSOR", 100)
    monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 1000)
    cut(tmp_path / "big.onnx", tmp_path / "small.onnx", "gradcam")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_cut_replaces_the_weights_of_the_first(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, path = contents(outside), outside / "small.onnx"
    cut(outside / "big.onnx", path, "gradcam")
    assert contents(outside) == before
    cut(outside / "big.onnx", path, ["gradcam", "backprop"])
    images = pixels(2)
    one, other = (Explainer(outside / name, threads=1).explain(images, "backprop") for name in ("big.onnx", path.name))
    np.testing.assert_array_equal(one.attributions, other.attributions)
    monkeypatch.undo()
    cut(outside / "big.onnx", path, "gradcam")
    assert contents(outside).keys() == before.keys() - {"small.onnx.data"}
    ModelFile.read(path)


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_cut_leaves_the_earlier_pair(
    error: type[BaseException], step: int, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are: old weights away, new weights in, model in."""
    before, replace, moves = contents(outside), os.replace, []

    def fail(source: Path, destination: Path) -> None:
        if Path(source).suffix != ".tmp":  # not a file that is written into the temporary folder
            moves.append(destination)
            if len(moves) == step + 1:
                raise error("interrupted")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OutputError, match="interrupted"):
        cut(outside / "big.onnx", outside / "small.onnx", ["gradcam", "backprop"])
    assert len(moves) > step and contents(outside) == before


@pytest.mark.parametrize("earlier", [None, b"not a model", "without weights"])
def test_the_weights_of_another_program_are_kept(earlier: str | bytes | None, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    if earlier == "without weights":
        cut(model_path, path, "gradcam")
    elif isinstance(earlier, bytes):
        path.write_bytes(earlier)
    (tmp_path / "small.onnx.data").write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="small.onnx.data: would be replaced, but is not the weights file"):
        cut(model_path, path, "gradcam")
    assert contents(tmp_path) == before


# Refusals.


def test_the_original_is_never_replaced(tiny: Tiny, tmp_path: Path) -> None:
    whole = external(tmp_path, tiny)
    (tmp_path / "link.onnx").symlink_to(whole)
    (tmp_path / "hard.onnx").hardlink_to(whole)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("big.onnx", "link.onnx", "hard.onnx", "big.onnx.data", "../" + tmp_path.name + "/big.onnx"):
        with pytest.raises(OutputError, match="would replace the original model file"):
            cut(whole, tmp_path / name, "gradcam")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_earlier_file_is_replaced_at_once_or_not_at_all(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cut(model_path, tmp_path / "small.onnx", "backprop")
    earlier = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match=f"^{re.escape(str(path))}: cannot be written: No space left"):
            cut(model_path, path, "gradcam")
    assert path.read_bytes() == earlier and list(tmp_path.iterdir()) == [path]
    cut(model_path, path, "gradcam")
    assert path.read_bytes() != earlier and list(tmp_path.iterdir()) == [path]
    (photo := tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"photo\.png: exists and is not a valid model file; move it"):
        cut(model_path, photo, "gradcam")
    assert photo.read_bytes() == b"mine"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: is not a file"):
        cut(model_path, tmp_path / "folder", "gradcam")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ArgumentError, "give the methods"),
        ({"methods": 3}, ArgumentError, "methods must be a name or a list of names, not 3"),
        ({"outputs": [None]}, ArgumentError, "outputs must be a name or a list of names"),
        ({"outputs": "gradcam_map"}, ArgumentError, "has no output gradcam_map, only logits, .* list it in --outputs"),
        ({"outputs": "gradcam_mop"}, ArgumentError, "Unknown outputs 'gradcam_mop'; .* Did you mean 'gradcam_map'"),
        ({"methods": "gradcm"}, MethodError, "Did you mean 'gradcam'"),
    ],
)
def test_bad_arguments(
    arguments: dict[str, object], error: type[SeewhyError], words: str, model_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        cut(model_path, tmp_path / "small.onnx", **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_command_line(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    result = run("cut", model_path, "--method", "gradcam", "--keep-output", "class_weights", "-o", path)
    assert result.exit_code == 0 and "methods: cam, gradcam, gradcam++" in result.stdout
    assert "cut from        tiny.onnx, SHA-256" in run("inspect", path).stdout
    failed(run("cut", model_path, "-o", path), "give the methods")
    failed(run("cut", model_path, "--method", "gradcam", "-o", model_path), "would replace the original")
    failed(run("cut", tmp_path / "none.onnx", "--method", "gradcam", "-o", path), "No such file")
