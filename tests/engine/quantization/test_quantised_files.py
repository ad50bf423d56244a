"""Tests of what a quantised file serves and refuses, through the functions and commands that read model files."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from seewhy import (
    Explainer,
    Method,
    MethodError,
    ModelFileError,
    cut,
    evaluate,
    explain_folder,
    register_method,
)
from seewhy.contract.constants import DIGEST_KEY, DIGEST_PLACEHOLDER, GRADIENTS_OF_THE_IMAGE
from seewhy.explainer.shuffled_stages import ShuffledStages
from seewhy.methods.registry import METHODS
from support.command_line import failed, run
from support.quantization import DRIFT, QUANTIZATION
from support.quantized_tiny import bright_pixels, quantized_tiny
from support.registered import unregister_all
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import write

ORIGIN = r"use the float32 file tiny\.onnx \(SHA-256 [0-9a-f]{12}\.\.\.\)"
OF_THE_IMAGE = [name for name in METHODS if not GRADIENTS_OF_THE_IMAGE.isdisjoint(METHODS[name].outputs)]
OF_MAPS = [name for name in METHODS if name not in OF_THE_IMAGE]


@pytest.fixture(scope="module")
def int8_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_tiny(tmp_path_factory.mktemp("int8"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


def test_an_explainer_tells_that_its_file_is_quantised(int8_path: Path, model_path: Path) -> None:
    explainer = Explainer(int8_path, ["cpu"])
    assert explainer.quantization is not None and explainer.quantization.drift == DRIFT
    assert repr(explainer).endswith("providers=['CPUExecutionProvider'], int8)")
    assert Explainer(model_path).quantization is None and "int8" not in repr(Explainer(model_path, ["cpu"]))


def test_map_methods_are_served(int8_path: Path) -> None:
    explainer = Explainer(int8_path, ["cpu"])
    assert list(explainer.methods) == OF_MAPS and {"gradcam", "cam", "scorecam", "ablationcam"} <= set(OF_MAPS)
    found = explainer.explain(bright_pixels(Tiny(), 2), OF_MAPS, top=2)
    expected = Explainer(int8_path.with_name("tiny.onnx"), ["cpu"]).explain(bright_pixels(Tiny(), 2), OF_MAPS, top=2)
    for name in ("cam", "gradcam", "hirescam"):
        # Eight bits have 255 steps; errors of two layers and their weights add up to a few of them.
        one, other = found[name].maps, expected[name].maps
        assert one is not None and other is not None
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())


@pytest.mark.parametrize("method", OF_THE_IMAGE)
def test_methods_that_need_a_gradient_of_the_image_are_refused(method: str, int8_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=rf"{method} needs a gradient of the image \([a-z_ ]+\), .*; {ORIGIN}$"):
        Explainer(int8_path).explain(bright_pixels(Tiny(), 1), method)
    with pytest.raises(MethodError, match=ORIGIN):
        cut(int8_path, tmp_path / "cut.onnx", method)


def test_commands_refuse_them_in_one_line(int8_path: Path, photos: Path, tmp_path: Path) -> None:
    for arguments in (
        ["explain", int8_path, photos, "-o", tmp_path / "out", "--method", "smoothgrad"],
        ["evaluate", int8_path, photos, "-o", tmp_path / "out", "--method", "backprop"],
        ["bench", int8_path, "--method", "guided-backprop"],
        ["cut", int8_path, "-o", tmp_path / "cut.onnx", "--method", "guided-gradcam"],
    ):
        failed(run(*arguments), ORIGIN)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cut.onnx").exists()


def test_a_method_of_the_user_is_refused_alike(int8_path: Path) -> None:
    try:
        register_method(Method("own", "Own", ("input_gradients",), False, METHODS["backprop"].rule))
        with pytest.raises(MethodError, match=rf"own needs a gradient of the image .*{ORIGIN}"):
            Explainer(int8_path).explain(bright_pixels(Tiny(), 1), "own")
    finally:
        unregister_all()


def test_a_cut_file_stays_quantised(int8_path: Path, tmp_path: Path) -> None:
    path = cut(int8_path, tmp_path / "cut.onnx", "gradcam")
    whole, small = Explainer(int8_path, ["cpu"], 1), Explainer(path, ["cpu"], 1)
    assert small.quantization == whole.quantization and small.metadata.schema == 3
    images = bright_pixels(Tiny(), 3)
    assert small.explain(images).attributions.tobytes() == whole.explain(images).attributions.tobytes()
    with pytest.raises(MethodError, match="the file was cut from tiny.int8.onnx|does not hold"):
        small.explain(images, "cam")
    with pytest.raises(MethodError, match=ORIGIN):
        small.explain(images, "backprop")


def test_a_missing_output_is_not_exported_again(int8_path: Path, tmp_path: Path) -> None:
    """A quantised file with fewer outputs names its float32 file, not the exporter."""
    model = onnx.load(cut(int8_path, tmp_path / "cut.onnx", "cam"))
    kept = {one.key: one.value for one in model.metadata_props if one.key != "seewhy.cut_from"}
    onnx.helper.set_model_props(model, {**kept, DIGEST_KEY: DIGEST_PLACEHOLDER})
    path = write(tmp_path / "m.onnx", model)
    with pytest.raises(MethodError, match=rf"gradcam needs .*, which this quantised file does not hold; {ORIGIN}"):
        Explainer(path).explain(bright_pixels(Tiny(), 1), "gradcam")


def test_a_quantised_file_holds_no_gradient_of_the_image(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", set_property(Tiny().proto(), "quantization", asdict(QUANTIZATION)))
    with pytest.raises(ModelFileError, match="is quantised, but has the output deconvnet_gradients"):
        Explainer(path)


def test_parameters_cannot_be_shuffled(int8_path: Path, photos: Path, tmp_path: Path) -> None:
    explainer = Explainer(int8_path)
    for shuffle in (lambda: explainer.with_shuffled_parameters(["fc.weight"]), lambda: ShuffledStages(explainer)):
        with pytest.raises(ModelFileError, match=rf"parameters of a quantised file cannot be shuffled; {ORIGIN}"):
            shuffle()
    result = run(
        "evaluate", int8_path, photos, "-o", tmp_path / "out", "--method", "gradcam", "--metric", "randomization"
    )
    failed(result, rf"cannot be shuffled; {ORIGIN}")


def test_an_evaluation_of_maps_runs(int8_path: Path, photos: Path, tmp_path: Path) -> None:
    result = evaluate(int8_path, photos, tmp_path / "out", methods=["gradcam"], metrics=["sparseness", "deletion"])
    assert len(result.per_image) >= 2 and set(result.metrics) == {"sparseness", "deletion"}


def test_run_json_records_the_quantisation(int8_path: Path, model_path: Path, photos: Path, tmp_path: Path) -> None:
    explain_folder(int8_path, photos, tmp_path / "out")
    model = json.loads((tmp_path / "out" / "run.json").read_text())["model"]
    found = Explainer(int8_path).quantization
    assert found is not None and model["quantization"] == json.loads(json.dumps(asdict(found)))
    explain_folder(model_path, photos, tmp_path / "plain")
    assert "quantization" not in json.loads((tmp_path / "plain" / "run.json").read_text())["model"]


def test_inspect_shows_the_drift(int8_path: Path) -> None:
    text = re.sub(r"\n {25}", " ", run("inspect", int8_path).stdout)  # as if lines were not wrapped
    for line in (
        r"quantised +2 layers with int8 weights and uint8 activations, 1 kept in float32; minmax, from 64 images",
        r"float32 file +tiny\.onnx, SHA-256 [0-9a-f]{64}",
        r"Drift from tiny\.onnx, measured on 96 images:",
        r"correlation of maps +median 0\.9974, 5th percentile 0\.9861, worst 0\.9702; 1 image with a constant map",
        r"same predicted class +93\.8 % of the images; 98\.4 % of the 61 with a probability above 0\.3",
        r"logits +relative L2 error 6\.1e-02",
        r"time of Grad-CAM +14\.2 ms an image, float32 41\.0 ms \(2\.89x\), batch size 1",
        r"on 2 threads, CPU with avx2, avx512f, avx512_vnni",
        r"\n +0 +0\.9960 +0\.9660 +3\.13 x\n +1 +0\.9974 +0\.9861 +2\.89 x +\(this file\)",
    ):
        assert re.search(line, text), line
    assert "parity" not in text.lower() and "parameters" not in text
    facts = json.loads(run("inspect", int8_path, "--json").stdout)
    assert facts["quantization"]["drift"] == json.loads(json.dumps(asdict(DRIFT))) and facts["schema"] == 3


def test_inspect_shows_what_was_not_measured(tmp_path: Path) -> None:
    drift = replace(
        DRIFT,
        constant_maps=96,
        correlation_median=None,
        correlation_p5=None,
        correlation_worst=None,
        confident_images=0,
        top1_agreement_confident=None,
        speed=(),
    )
    shown = asdict(replace(QUANTIZATION, drift=drift, trades=()))
    tiny = Tiny(outputs=("logits", "activations", "gradients"))
    text = run("inspect", write(tmp_path / "m.onnx", set_property(tiny.proto(), "quantization", shown))).stdout
    assert "correlation of maps    unknown, because every image has a constant map" in text
    assert re.search(r"same predicted class +93\.8 % of the images\n", text)
    assert re.search(r"time of Grad-CAM +not measured$", text.strip())
