"""Tests of `seewhy quantize`: what it prints, and one line with exit status 2 for each error."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import Explainer
from support.command_line import failed, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.quantization.speed._REST", 0)


def test_it_prints_sizes_drift_and_what_to_run_next(model_path: Path, photos: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    result = run("quantize", model_path, photos, "-o", small, "--max-drift", 1, "--keep-float", 1)
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    found = Explainer(small).quantization
    assert found is not None and len(found.kept_float) == 1
    first, *lines = result.stdout.splitlines()
    assert re.fullmatch(rf"{small}: \d+\.\d\d MB instead of \d+\.\d\d MB", first)
    assert result.stdout.startswith("precision: 1 layer with int8 weights", len(first) + 1)
    methods = result.stdout.partition("methods: ")[2].partition("\n\n")[0]
    assert "gradcam" in methods and "backprop" not in methods and "skipped" not in result.stdout
    assert all(len(line) <= 80 for line in lines[:-1])
    assert f"{found.drift.correlation_median:.4f}" in result.stdout
    command = lines[-1]
    assert shlex.split(command) == ["seewhy", "explain", str(small), str(photos), "-o", "explanations"]
    # The report is the one that `inspect` prints later.
    drift = result.stdout[result.stdout.index("Drift from") : result.stdout.index("\n\nExplain images")]
    assert drift in run("inspect", small).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-drift", 0, "--keep-float", 0], "drift"),
        (["--max-drift", 1.5], "--max-drift"),
        (["--keep-float", 9], "leaves nothing to quantise"),
        (["--keep-float", -1], "--keep-float"),
    ],
)
def test_errors_are_one_line(
    options: list[object], message: str, model_path: Path, photos: Path, tmp_path: Path
) -> None:
    failed(run("quantize", model_path, photos, "-o", tmp_path / "small.onnx", *options), message)
    assert not (tmp_path / "small.onnx").exists()


def test_errors_of_arguments(model_path: Path, photos: Path, tmp_path: Path) -> None:
    failed(run("quantize", model_path, "-o", tmp_path / "small.onnx"), "no images given")
    failed(run("quantize", tmp_path / "none.onnx", photos, "-o", tmp_path / "small.onnx"), "No such file")
    failed(run("quantize", model_path, photos, "-o", model_path), "would replace the original")


def test_images_that_cannot_be_read_are_skipped_with_a_warning(model_path: Path, photos: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    (photos / "20.png").write_bytes(b"broken")
    result = run("quantize", model_path, photos, "-o", small, "--max-drift", 1, "--keep-float", 1)
    assert result.exit_code == 0
    assert re.fullmatch(rf"seewhy: warning: {photos / '20.png'}: .*\(skipped\)\n", result.stderr)
    assert "\nskipped: 1 image that cannot be read\n" in result.stdout
    (photos / "19.png").write_bytes(b"broken")
    result = run("quantize", model_path, photos, "-o", tmp_path / "other.onnx")
    *warnings, error = result.stderr.splitlines()
    assert (result.exit_code, len(warnings)) == (2, 2)
    assert error.startswith("seewhy: error: only 19 of the 21 images can be used")


def test_the_function_is_public(model_path: Path, photos: Path, tmp_path: Path) -> None:
    found = seewhy.quantize(model_path, photos, tmp_path / "small.onnx", max_drift=1, keep_float=0)
    assert found == Explainer(tmp_path / "small.onnx").quantization
