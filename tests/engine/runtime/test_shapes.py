"""Tests of graphs whose outputs have other shapes than the contract defines.

onnxruntime does not enforce the shapes that a graph declares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seewhy import Explainer, ModelFileError
from seewhy.methods.registry import METHODS
from support.session_calls import Feeds, Run, replace_runs
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import pixels, write


def returning(name: str, *nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """Return the tiny model with another value as output `name`, which `nodes` compute from the original `before`."""
    model = Tiny(labels=None).proto()
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for i, used in enumerate(names):
                if used == name:
                    names[i] = "before"
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in constants.items())
    output = next(value for value in graph.output if value.name == name)
    rank = len(output.type.tensor_type.shape.dim)
    output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))
    return model


FLAT = helper.make_node("GlobalAveragePool", ["before"], ["gradients"])
TWICE = helper.make_node("Concat", ["before", "before"], ["logits"], axis=0)
THRICE = helper.make_node("Concat", ["before", "before", "before"], ["activations"], axis=0)
SLICES = {"first": np.array([0]), "second": np.array([1])}
NARROW = helper.make_node("Slice", ["before", "first", "second", "second"], ["class_weights"])
COPY = helper.make_node("Identity", ["activations"], ["input_gradients"])
EMPTY = helper.make_node("Slice", ["before", "first", "first", "axis"], ["activations"])

GRADIENT = [name for name, method in METHODS.items() if "gradients" in method.outputs]
ACTIVATION = [name for name, method in METHODS.items() if "activations" in method.outputs]
PIXEL = [name for name, method in METHODS.items() if "input_gradients" in method.outputs]


@pytest.mark.parametrize(
    ("model", "methods", "words"),
    [
        (returning("gradients", FLAT), GRADIENT, r"gradients must have shape \(1, 5, 6, 8\), not \(1, 5, 1, 1\)"),
        (returning("logits", TWICE), [*METHODS], r"logits must have shape \(1, 6\), not \(2, 6\)"),
        (
            returning("activations", THRICE),
            ACTIVATION,
            r"activations must have shape \(1, C, h, w\), not \(3, 5, 6, 8\)",
        ),
        (
            returning("class_weights", NARROW, **SLICES),
            ["cam"],
            r"class_weights must have shape \(1, 5\), not \(1, 1\)",
        ),
        (
            returning("input_gradients", COPY),
            PIXEL,
            r"input_gradients must have shape \(\d+, 3, 12, 16\), not \(\d+, 5, 6, 8\)",
        ),
        (
            returning("activations", EMPTY, **SLICES, axis=np.array([3])),
            ["eigencam"],
            r"activations must have shape \(1, C, h, w\), not \(1, 5, 6, 0\)",
        ),
    ],
    ids=["gradients", "logits", "activations", "class_weights", "input_gradients", "nothing"],
)
@pytest.mark.parametrize("top", [1, 2])
def test_other_shapes(tmp_path: Path, model: onnx.ModelProto, methods: list[str], words: str, top: int) -> None:
    explainer = Explainer(write(tmp_path / "odd.onnx", model), threads=1)
    for method in methods:
        with pytest.raises(ModelFileError, match=rf"odd\.onnx: {words}; export the network again$"):
            explainer.explain(pixels(), method=method, top=top, options={method: few(method)})


def few(method: str) -> dict[str, Any]:
    return {"smoothgrad": {"samples": 2}, "integrated-gradients": {"steps": 2}}.get(method, {})


def test_other_shapes_of_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients that a run of the head returns must have the shape of the activations that it was fed."""
    explainer = Explainer(Tiny().save(tmp_path / "m.onnx"), threads=1)

    def flat(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        values = run(outputs, feeds)
        return {"gradients": values["gradients"][:, :, :1]} if outputs == {"gradients"} else values

    replace_runs(monkeypatch, flat)
    with pytest.raises(ModelFileError, match=r"gradients must have shape \(3, 5, 6, 8\), not \(3, 5, 1, 8\)"):
        explainer.explain(pixels(), top=2)


@pytest.mark.parametrize("classes", [2, 9])
def test_another_number_of_classes(tmp_path: Path, classes: int) -> None:
    model = returning("logits", helper.make_node("Identity", ["before"], ["logits"]))
    set_property(model, "input", {"image_size": [12, 16], "channels": 3, "classes": classes})
    explainer = Explainer(write(tmp_path / "odd.onnx", model), threads=1)
    for method in METHODS:
        # A graph that looks up a missing class fails; the plain run of Score-CAM does not look it up.
        for arguments in ({"top": classes}, {"target": classes - 1} if method == "scorecam" else {}):
            with pytest.raises(ModelFileError, match=rf"logits must have shape \(1, {classes}\), not \(1, 6\)"):
                explainer.explain(pixels(), method=method, **arguments)
