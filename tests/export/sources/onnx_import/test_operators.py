"""Tests of `seewhy_export.sources.onnx_import`: every operator and opset against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seewhy_export.sources.onnx_import.file_reading import read_onnx
from seewhy_export.sources.onnx_import.graph_module import OnnxModule
from support.exporting.onnx_models import make_model, node, original, random, save
from support.exporting.operator_case import Case
from support.exporting.operator_cases import CASES


def check(case: Case, opset: int, folder: Path, batch: int | str) -> None:
    """Assert that the converted operator computes what onnxruntime computes, in float32 and float64."""
    nodes = [*case.nodes, node("Flatten", ["y"], ["out"])]
    path = save(make_model(nodes, case.constants, (batch, 6, 8, 8), opset), folder / "one.onnx")
    images = random(2, 6, 8, 8, seed=7, low=0.1 if case.positive else -3.0, high=3.0)
    module = OnnxModule(read_onnx(path), 6, (8, 8))
    if batch == "N":
        exact = original(path, images)
    else:
        exact = np.concatenate([original(path, image[None]) for image in images])
    with torch.no_grad():
        value = module(torch.from_numpy(images)).numpy()
        double = module.double()(torch.from_numpy(images).double()).numpy()
    assert value.shape == exact.shape and double.dtype == np.float64
    # Both sum up to a few hundred float32 products, in different orders. NaN must be in the same places.
    np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(double, exact, rtol=1e-5, atol=1e-5)


PARAMETERS = [pytest.param(case, opset, id=f"{case.name}-{opset}") for case in CASES for opset in case.opsets]


@pytest.mark.parametrize(("case", "opset"), [p for p in PARAMETERS if p.values[0].free])  # type: ignore[attr-defined]
def test_any_batch(case: Case, opset: int, tmp_path: Path) -> None:
    check(case, opset, tmp_path, "N")


@pytest.mark.parametrize(("case", "opset"), [p for p in PARAMETERS if p.values[0].fixed])  # type: ignore[attr-defined]
def test_fixed_batch_of_one(case: Case, opset: int, tmp_path: Path) -> None:
    check(case, opset, tmp_path, 1)
