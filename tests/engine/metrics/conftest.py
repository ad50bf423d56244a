"""Fixtures of the tests of metrics."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy import Explainer, Method
from seewhy._shared.arrays import Floats
from seewhy.methods import registry
from seewhy.methods.base import RuleContext, Values
from support.color_network import save_color_network


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """Return an explainer of the network that counts colors."""
    return Explainer(save_color_network(tmp_path_factory.mktemp("colors") / "colors.onnx"), threads=1)


def _cam(values: Values, context: RuleContext) -> Floats:
    maps = np.einsum("nk,nkhw->nhw", values["class_weights"], values["activations"])
    result: Floats = np.maximum(maps, 0).astype(np.float32)
    return result


def _inverted_cam(values: Values, context: RuleContext) -> Floats:
    maps = _cam(values, context)
    return maps.max(axis=(1, 2), keepdims=True) - maps


def _inverted_ixg(values: Values, context: RuleContext) -> Floats:
    return -values["images"] * values["input_gradients"]


@pytest.fixture
def inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the methods `inverted-cam` (max - map) and `inverted-ixg` (-map)."""
    for method in (
        Method("inverted-cam", "max - CAM", ("activations", "class_weights"), True, _inverted_cam),
        Method("inverted-ixg", "-IxG", ("input_gradients",), False, _inverted_ixg),
    ):
        monkeypatch.setitem(registry.METHODS, method.name, method)
