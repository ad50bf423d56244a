"""Tests of `seewhy.cli.model_report` and `seewhy inspect`: the facts of a model file as text and as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from seewhy.methods.registry import METHODS
from support import tiny_model_with_skip
from support.command_line import failed, run
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import write


def test_inspect(model_path: Path) -> None:
    result = run("inspect", model_path)
    assert result.exit_code == 0 and result.stderr == ""
    for words in [
        *("tiny", "tests.tiny_model:Tiny", "16x12 pixels, 3 channels", "6: tabby, tabby cat; espresso; crane; ..."),
        *("features.4 (automatic)", ", ".join(METHODS), "2 relu; guided: 2"),
        *("squash to 16x12, bilinear; RGB, mean 0.485 0.456 0.406", "torch 2.13.0", "intact"),
    ]:
        assert words in result.stdout, words
    assert re.search(r"logits +noise +1\.0e-07 +2\.0e-07", result.stdout)


def test_inspect_describes_the_layer(tiny: Tiny, tmp_path: Path) -> None:
    layer = {"name": "norm1", "chosen": "named", "separates": False, "cut": None, "form": "tokens", "dropped_tokens": 2}
    path = write(tmp_path / "m.onnx", set_property(tiny.proto(), "layer", layer))
    assert "norm1 (named), converted to a map from tokens, 2 without a position dropped" in run("inspect", path).stdout


def test_inspect_several_classes(model_path: Path, tmp_path: Path) -> None:
    assert re.search(r"several classes +one run of the image serves all classes", run("inspect", model_path).stdout)
    assert json.loads(run("inspect", model_path, "--json").stdout)["image_repeated_for_each_class"] is False
    other = tiny_model_with_skip.save(tmp_path / "m.onnx")
    words = (
        r"several classes +the image is repeated for each class, because not every path .* passes through features\.4"
    )
    assert re.search(words, run("inspect", other).stdout)
    assert json.loads(run("inspect", other, "--json").stdout)["image_repeated_for_each_class"] is True
    bare = Tiny(outputs=("logits", "input_gradients")).save(tmp_path / "bare.onnx")
    assert "for each class, because the file has no activations to start from" in run("inspect", bare).stdout


def test_inspect_json(model_path: Path, tiny: Tiny) -> None:
    facts = json.loads(run("inspect", model_path, "--json").stdout)
    assert facts["model"] == {"name": "tiny", "source": "tests.tiny_model:Tiny", "weights_sha256": "0f" * 32}
    assert list(facts["outputs"]) == list(tiny.outputs)
    assert facts["inputs"] == {
        "images": {"type": "float32", "shape": ["N", 3, 12, 16]},
        "targets": {"type": "int64", "shape": ["N"]},
    }
    assert facts["outputs"]["activations"] == {"type": "float32", "shape": ["N", 5, 6, 8]}
    assert facts["sha256"] == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert facts["methods"] == list(METHODS)
    assert facts["damage"] is None and facts["schema"] == 1
    assert facts["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


def test_inspect_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(Tiny().save(path).read_bytes().replace(Tiny().weights()["fc.bias"].tobytes(), bytes(24)))
    result = run("inspect", path)
    failed(result, "damaged or changed")
    assert re.search("integrity +damaged", result.stdout)
    assert json.loads(run("inspect", path, "--json").stdout)["damage"]


def test_inspect_bare_file(tmp_path: Path) -> None:
    path = Tiny(labels=None, preprocessing=None, outputs=("logits",)).save(tmp_path / "m.onnx")
    result = run("inspect", path)
    assert "6, without labels" in result.stdout and "takes preprocessed arrays only" in result.stdout
    assert re.search("methods +none", result.stdout)
