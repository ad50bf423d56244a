"""Workarounds for providers that compute a correct graph wrongly: the same graph in a form that they compute right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

OPENVINO = "OpenVINOExecutionProvider"
_ALMOST_NOTHING = -1e-30


def _hard_sigmoid_without_zero(model: onnx.ModelProto) -> None:
    """OpenVINO takes HardSigmoid's beta for its default, 0.5, where it is 0 (seen in 2025.4, onnxruntime 1.24).

    Older exporters wrote the masks of rectifiers so, with a slope of the largest float32. A beta just below zero gives
    the same bits for all but denormal inputs: 0 stays 0, and the smallest normal number times the slope is 4.
    """
    for node in model.graph.node:
        if node.op_type == "HardSigmoid" and not node.domain:
            for attribute in node.attribute:
                if attribute.name == "beta" and attribute.f == 0:
                    attribute.f = _ALMOST_NOTHING


_QUIRKS: dict[str, Callable[[onnx.ModelProto], None]] = {OPENVINO: _hard_sigmoid_without_zero}


def adapt(model: onnx.ModelProto, providers: Sequence[str]) -> None:
    """Change `model` in place for `providers`, by their full names."""
    for provider in providers:
        if provider in _QUIRKS:
            _QUIRKS[provider](model)
