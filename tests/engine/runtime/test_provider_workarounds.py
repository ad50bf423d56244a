"""Tests of `seewhy.runtime.provider_workarounds`: graphs change only where a provider needs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from seewhy import Explainer
from seewhy.contract import constants as contract
from seewhy.runtime.provider_workarounds import OPENVINO, apply_workarounds
from support.tiny_model import Tiny

CPU = "CPUExecutionProvider"
LARGEST = float(np.finfo(np.float32).max)


def masks(*betas: float | None) -> onnx.ModelProto:
    """Return a model that sums HardSigmoids of x with these betas."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("HardSigmoid", ["x"], [f"y{i}"], alpha=LARGEST, **({} if beta is None else {"beta": beta}))
        for i, beta in enumerate(betas)
    ]
    nodes.append(helper.make_node("Sum", [node.output[0] for node in nodes], ["y"]))
    floats = [value("x", onnx.TensorProto.FLOAT, ["n"])], [value("y", onnx.TensorProto.FLOAT, ["n"])]
    opset = helper.make_opsetid("", contract.OPSET)
    return helper.make_model(
        helper.make_graph(nodes, "masks", *floats), ir_version=contract.IR_VERSION, opset_imports=[opset]
    )


def betas(model: onnx.ModelProto) -> list[float]:
    return [a.f for node in model.graph.node for a in node.attribute if a.name == "beta"]


def test_a_beta_of_zero_is_replaced_for_openvino() -> None:
    model = masks(0.0, 0.5, None, 3.0)
    apply_workarounds(model, [CPU])
    assert betas(model) == [0, 0.5, 3]
    apply_workarounds(model, [OPENVINO, CPU])
    assert betas(model) == [pytest.approx(-1e-30), 0.5, 3]


def test_the_mask_has_the_same_bits() -> None:
    small = float(np.finfo(np.float32).tiny)
    x = np.array([0, -0.0, small, 2 * small, 1e-20, 1, 1e38, -small, -1e-20, -1, -1e38], np.float32)
    before = masks(0.0)
    after = masks(0.0)
    apply_workarounds(after, [OPENVINO])
    found = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU]).run(None, {"x": x})[0]
        for model in (before, after)
    ]
    np.testing.assert_array_equal(found[0], x > 0)
    np.testing.assert_array_equal(found[1], x > 0)


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="needs onnxruntime-openvino")
@pytest.mark.parametrize("method", ["gradcam", "cam", "guided-backprop", "backprop"])
def test_openvino(tmp_path: Any, method: str) -> None:
    path = Tiny().save(tmp_path / "m.onnx")
    images = np.random.default_rng(0).standard_normal((3, 3, 12, 16)).astype(np.float32)
    found = Explainer(path, [("openvino", {"device_type": "CPU"})]).explain(images, method)
    right = Explainer(path, ["cpu"]).explain(images, method)
    np.testing.assert_allclose(found.attributions, right.attributions, rtol=1e-4, atol=1e-5)
