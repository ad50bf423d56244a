"""Tests of `seewhy.quantization.quantize`: the nodes in 8 bits, their numbers, what is refused and what is kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from seewhy import ArgumentError, Explainer, ImageError, ModelFileError, OutputError, SeewhyError
from seewhy.contract.quantization import Drift
from seewhy.quantization import quantize as module
from seewhy.quantization.quantize import quantize
from support.quantized_tiny import bright_pixels
from support.tiny_model import Tiny
from support.tiny_model_files import write

TINY = Tiny()
# Few images, and no limit: the tests are about the file, not about the accuracy of random weights.
IMAGES = bright_pixels(TINY, 30)


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the measurement of speed, which takes a second for each file."""
    for name in ("quantize", "float_layers"):
        place = sys.modules[f"seewhy.quantization.{name}"]
        original = place.measure_drift
        monkeypatch.setattr(place, "measure_drift", lambda a, b, images, *_, run=original: run(a, b, images, ()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return TINY.save(tmp_path / "tiny.onnx")


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path).graph


def exact() -> onnxruntime.SessionOptions:
    """Return options with which CPUs without VNNI compute the same."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def test_only_layers_up_to_the_target_layer_run_in_8_bits(model: Path, tmp_path: Path) -> None:
    found = quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    graph = graph_of(tmp_path / "small.onnx")
    made = producers(graph)
    for node in graph.node:
        kinds = [made[name].op_type for name in node.input if name in made]
        if node.op_type == "Conv":
            assert kinds == ["DequantizeLinear"] * 3
        elif node.op_type == "Gemm":  # the head
            assert "DequantizeLinear" not in kinds
    assert "Relu" not in {node.op_type for node in graph.node}, "the ranges replace both rectifiers"
    assert made["activations"].op_type == "DequantizeLinear"
    assert (found.int8_layers, found.kept_float, found.trades) == (2, (), ())
    assert {"input_gradients", "guided_gradients"}.isdisjoint(value.name for value in graph.output)


def test_the_numbers_are_those_of_integer_arithmetic(model: Path, tmp_path: Path) -> None:
    """Compute both convolutions in NumPy integers, from the constants of the file alone."""
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    value = constants(graph_of(tmp_path / "small.onnx"))
    pixels = IMAGES[:2].astype(np.float64)

    def stored(values: NDArray[np.float64], name: str) -> NDArray[np.int64]:
        steps = np.rint(values / value[f"{name}/scale"]) + value[f"{name}/zero_point"]
        return np.clip(steps, 0, 255).astype(np.int64) - int(value[f"{name}/zero_point"])

    def convolution(inputs: NDArray[np.int64], source: str, name: str) -> NDArray[np.float64]:
        weights = value[f"{name}/weights/quantized"].astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
        )
        sums = np.einsum("nchwij,ocij->nohw", windows, weights)
        sums += value[f"{name}/bias/quantized"].astype(np.int64)[:, None, None]
        scale = np.float64(value[f"{source}/scale"]) * value[f"{name}/weights/scale"].astype(np.float64)
        result: NDArray[np.float64] = sums * scale[:, None, None]
        return result

    first = stored(convolution(stored(pixels, "images"), "images", "c1"), "a1")
    pooled = first.reshape(2, 4, 6, 2, 8, 2).max(axis=(3, 5))
    second = stored(convolution(pooled, "a1", "c2"), "activations")
    explained = Explainer(tmp_path / "small.onnx", threads=1).explain(IMAGES[:2], "gradcam")
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), exact(), providers=["CPUExecutionProvider"])
    feeds = {"images": IMAGES[:2], "targets": np.array([-1, -1])}
    logits, activations = session.run(["logits", "activations"], feeds)
    # A product that lies within float32's rounding of the middle between two steps may go either way, in both layers.
    difference = np.abs(activations / value["activations/scale"] - second)
    assert difference.max() <= 1.01
    assert np.mean(difference > 0.5) < 0.02
    np.testing.assert_allclose(explained.logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_images_get_a_multiple_of_four_channels_without_a_change_of_numbers(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer has enough outputs for onnxruntime's fast convolution, which needs such images."""
    tiny = Tiny(channels=channels, preprocessing=None)
    random = np.random.default_rng(1)
    shapes = {"conv1.weight": (16, channels, 3, 3), "conv1.bias": (16,), "conv2.weight": (5, 16, 3, 3)}
    wide = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    float32 = write(tmp_path / "float32.onnx", tiny.proto({**tiny.weights(), **wide}))
    images = bright_pixels(tiny, 20)
    quantize(float32, images, tmp_path / "wide.onnx", max_drift=1, keep_float=0)
    monkeypatch.setattr("seewhy.quantization.qdq_graph._added_channels", lambda layer: 0)
    quantize(float32, images, tmp_path / "plain.onnx", max_drift=1, keep_float=0)
    graph = graph_of(tmp_path / "wide.onnx")
    assert ("c1/images" in producers(graph)) == (channels != 4)
    assert constants(graph)["c1/weights/quantized"].shape[1] in (4, 8)
    found, expected = (
        Explainer(tmp_path / name, ["cpu"], 1).explain(images, "gradcam") for name in ("wide.onnx", "plain.onnx")
    )
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert found.maps is not None and expected.maps is not None
    np.testing.assert_array_equal(found.maps, expected.maps)


@pytest.mark.parametrize(("bounds", "absorbed"), [((0, 6), True), ((-1, 1), True), ((1, 6), False), ((-6, -1), False)])
def test_a_clip_is_part_of_a_range_only_if_it_contains_0(
    bounds: tuple[float, float], absorbed: bool, tmp_path: Path
) -> None:
    model = TINY.proto()
    rectifier = next(node for node in model.graph.node if node.op_type == "Relu")
    rectifier.op_type = "Clip"
    rectifier.input.extend(["low", "high"])
    for name, value in zip(("low", "high"), bounds, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    float32 = write(tmp_path / "float32.onnx", model)
    quantize(float32, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    assert ("Clip" in {node.op_type for node in graph_of(tmp_path / "small.onnx").node}) != absorbed


def test_a_channel_with_tiny_weights_keeps_its_bias(model: Path, tmp_path: Path) -> None:
    """In steps of such weights the bias exceeds 32 bits, and the sum would overflow."""
    weights = TINY.weights()
    weights["conv1.weight"][0], weights["conv1.bias"][0] = 1e-12, 0.5
    write(model, TINY.proto(weights))
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    value = constants(graph_of(tmp_path / "small.onnx"))
    stored = value["c1/bias/quantized"].astype(np.int64)
    scale = value["c1/bias/scale"].astype(np.float64)
    assert np.abs(stored).max() <= 2**24
    assert stored[0] * scale[0] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("kept", [0, 1])
def test_optimised_and_plain_sessions_agree(model: Path, tmp_path: Path, kept: int) -> None:
    """onnxruntime must not round the weights of a layer in float32, which it does between 8-bit values."""
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=kept)
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = exact()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), options, ["CPUExecutionProvider"])
        found.append(session.run(["activations"], {"images": IMAGES, "targets": np.full(30, -1)})[0])
    step = found[0].max() / 255
    assert np.mean(np.abs(found[0] - found[1]) > 0.5 * step) < 0.02
    assert np.abs(found[0] - found[1]).max() < 3 * step


def test_a_kept_layer_has_its_float32_weights(model: Path, tmp_path: Path) -> None:
    found = quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=1)
    [kept] = found.kept_float
    graph = graph_of(tmp_path / "small.onnx")
    name = {"c1": "conv1.weight", "c2": "conv2.weight"}[kept]
    np.testing.assert_array_equal(constants(graph)[name], TINY.weights()[name])
    assert found.int8_layers == 1


def test_the_same_images_give_the_same_graph(model: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        quantize(model, IMAGES, tmp_path / name, max_drift=1)
    first, second = (graph_of(tmp_path / name).SerializeToString(deterministic=True) for name in ("a.onnx", "b.onnx"))
    assert first == second


def test_images_that_calibrate_do_not_measure_the_drift(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[bytes]] = {}
    measure, search = module.measure_drift, module.search

    def measuring(float32: Explainer, small: Explainer, images: Any, *rest: Any) -> Any:
        seen["held out"] = [row.tobytes() for row in images]
        return measure(float32, small, images, *rest)

    def searching(candidates: Any, *rest: Any) -> Any:
        seen["calibration"] = [row.tobytes() for row in candidates.pixels]
        return search(candidates, *rest)

    monkeypatch.setattr(module, "measure_drift", measuring)
    monkeypatch.setattr(module, "search", searching)
    found = quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1)
    assert (len(seen["calibration"]), len(seen["held out"])) == (12, 18)
    assert not set(seen["calibration"]) & set(seen["held out"])
    assert (found.calibration_images, found.drift.images) == (12, 18)


def test_the_float32_file_is_named_and_unchanged(model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1)
    explainer = Explainer(tmp_path / "small.onnx")
    assert model.read_bytes() == before
    assert explainer.quantization is not None
    assert explainer.quantization.float32_file == "tiny.onnx"
    assert explainer.quantization.float32_sha256 == Explainer(model).sha256
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["small.onnx", "tiny.onnx"]


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"])
def test_maps_resemble_those_of_the_float32_file(model: Path, tmp_path: Path, method: str) -> None:
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    for choice in ({"target": 2}, {"top": 3}):
        first, second = (
            Explainer(path, threads=1).explain(IMAGES[:4], method, **choice)
            for path in (model, tmp_path / "small.onnx")
        )
        if "top" in choice and not np.array_equal(first.targets, second.targets):
            continue  # the order of two close classes changed
        assert first.maps is not None
        assert second.maps is not None
        # An 8-bit value is off by at most half a 255th of its range; a map sums five of them.
        assert np.abs(first.maps - second.maps).max() <= 0.1 * np.abs(first.maps).max()


def test_nothing_is_written_when_the_drift_is_too_large(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"not written: its maps drift by 0\.\d+, more than 0 .*--keep-float.*--max-"):
        quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=0, keep_float=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.onnx"]


def test_an_image_is_not_replaced(model: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(image)
    before = image.read_bytes()
    with pytest.raises(OutputError, match="photo.png: exists and is not a valid model file"):
        quantize(model, [image] * 20, image, max_drift=1)
    assert image.read_bytes() == before


def test_a_missing_file_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere: no such file or folder"):
        quantize(model, tmp_path / "nowhere", tmp_path / "small.onnx")


def test_a_limit_of_1_accepts_every_file(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drift exceeds 1 if maps are the opposite of float32's."""
    original = module.measure_drift

    def opposite(*arguments: Any) -> Drift:
        return replace(original(*arguments), correlation_worst=-0.6, correlation_p5=-0.5)

    monkeypatch.setattr(module, "measure_drift", opposite)
    assert quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0).drift.value == 1.5
    with pytest.raises(OutputError, match="drift by 1.5000, more than 0.9"):
        quantize(model, IMAGES, tmp_path / "other.onnx", max_drift=0.9, keep_float=0)


def test_files_and_archives_give_the_file_of_their_images(model: Path, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", 40)
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder, "images")
    graphs = []
    for i, images in enumerate((folder, tmp_path / "images.tar")):
        quantize(model, images, tmp_path / f"{i}.onnx", max_drift=1, keep_float=0)
        graphs.append(onnx.load(tmp_path / f"{i}.onnx").graph.SerializeToString(deterministic=True))
    assert graphs[0] == graphs[1]


def images_in(folder: Path, count: int) -> Path:
    """Write PNG images into a new folder, and return it."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i:03}.png")
    return folder


def test_an_image_that_cannot_be_read_is_skipped_or_raises(model: Path, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", 22)
    (folder / "003.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"003\.png"):
        quantize(model, folder, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    skipped: list[SeewhyError] = []
    found = quantize(model, folder, tmp_path / "small.onnx", max_drift=1, keep_float=0, skipped=skipped.append)
    assert [str(folder / "003.png") in str(error) for error in skipped] == [True]
    assert (found.calibration_images, found.drift.images) == (8, 13)


def test_nothing_is_calibrated_if_too_few_images_can_be_read(model: Path, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", 21)
    for name in ("003.png", "011.png"):
        (folder / name).write_bytes(b"broken")
    with pytest.raises(ImageError, match="only 19 of the 21 images can be used, but quantisation needs at least 20"):
        quantize(model, folder, tmp_path / "small.onnx", skipped=lambda error: None)
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file/small.onnx", "file: is not a folder"),
        ("file/folder/small.onnx", "file/folder: cannot be created: Not a directory"),
        ("folder", "folder: is not a file"),
        ("a" * 300, "cannot be written: File name too long"),
        (f"new/{'a' * 300}/small.onnx", "cannot be created: File name too long"),
        pytest.param(
            "/proc/small.onnx",
            "/proc/small.onnx: cannot be written",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write to"),
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_images_are_read(
    model: Path, tmp_path: Path, output: str, message: str
) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=message):
        quantize(model, tmp_path / "nowhere", tmp_path / output)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder", "tiny.onnx"]


def test_the_check_of_the_output_leaves_no_folders(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder" / "small.onnx"
    with pytest.raises(OutputError, match="drift"):
        quantize(model, IMAGES, output, max_drift=0, keep_float=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.onnx"]
    quantize(model, IMAGES, output, max_drift=1, keep_float=0)
    assert [entry.name for entry in output.parent.iterdir()] == ["small.onnx"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX limits")
def test_a_full_disk_names_the_output(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_model = module.write_model

    def write_with_little_room(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            write_model(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(module, "write_model", write_with_little_room)
    output = tmp_path / "small.onnx"
    with pytest.raises(OutputError, match=f"^{re.escape(str(output))}: cannot be written: File too large$"):
        quantize(model, IMAGES, output, max_drift=1, keep_float=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.onnx"]


def test_lists_need_paths(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="lists needs paths"):
        quantize(model, IMAGES, tmp_path / "small.onnx", lists=[tmp_path / "list.txt"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drift": 1.5}, "max_drift must be a number from 0 to 1, not 1.5"),
        ({"max_drift": True}, "max_drift must be"),
        ({"keep_float": -1}, "keep_float must be an integer of at least 0"),
        ({"keep_float": 2}, "keep_float=2 leaves nothing to quantise: tiny.onnx has 2 layers"),
        ({"images": IMAGES[:19]}, "needs at least 20 images, better 160, not 19"),
    ],
)
def test_bad_arguments_are_refused(model: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        quantize(model, **{"images": IMAGES, "output": tmp_path / "small.onnx", **options})
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.onnx"]


def test_files_that_cannot_be_quantised_are_refused(model: Path, tmp_path: Path) -> None:
    quantize(model, IMAGES, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    with pytest.raises(ModelFileError, match="quantised already; quantise tiny.onnx"):
        quantize(tmp_path / "small.onnx", IMAGES, tmp_path / "smaller.onnx")
    with pytest.raises(OutputError, match="would replace the original"):
        quantize(model, IMAGES, model)
    logits_only = TINY.save(tmp_path / "logits.onnx", outputs=("logits",))
    with pytest.raises(ModelFileError, match="has no output activations"):
        quantize(logits_only, IMAGES, tmp_path / "smaller.onnx")


def test_a_fresh_process_imports_neither_pytorch_nor_sympy(model: Path, tmp_path: Path) -> None:
    code = f"""
import sys, numpy as np
from seewhy.quantization.quantize import quantize
images = np.random.default_rng(0).uniform(0, 2, (20, 3, 12, 16)).astype(np.float32)
quantize({str(model)!r}, images, {str(tmp_path / "small.onnx")!r}, max_drift=1, keep_float=0)
assert not {{"torch", "sympy", "onnxruntime.quantization"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
