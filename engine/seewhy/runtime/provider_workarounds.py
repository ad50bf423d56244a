"""Workarounds for execution providers that compute a correct graph wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seewhy.runtime.onnx_messages import ModelProto

OPENVINO = "OpenVINOExecutionProvider"
_ALMOST_ZERO = -1e-30


def _hard_sigmoid_without_zero(model: ModelProto) -> None:
    """Replace a beta of zero in HardSigmoid, which OpenVINO reads as the default of 0.5.

    The error was seen in OpenVINO 2025.4 with onnxruntime 1.24. Older exporters wrote the masks of rectifiers in this
    form, with the largest float32 as slope. A beta just below zero gives the same bits for all but denormal inputs: 0
    stays 0, and the smallest normal number times the slope is 4.
    """
    for node in model.graph.node:
        if node.op_type == "HardSigmoid" and not node.domain:
            for attribute in node.attribute:
                if attribute.name == "beta" and attribute.f == 0:
                    attribute.f = _ALMOST_ZERO


_WORKAROUNDS: dict[str, Callable[[ModelProto], None]] = {OPENVINO: _hard_sigmoid_without_zero}


def apply_workarounds(model: ModelProto, providers: Sequence[str]) -> None:
    """Change a model in place so that all providers, given by their full names, compute it correctly."""
    for provider in providers:
        if provider in _WORKAROUNDS:
            _WORKAROUNDS[provider](model)
