"""Tests of `seewhy.quantization.backbone`: which means become pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seewhy.quantization.backbone import read_backbone
from seewhy.runtime.model_file import ModelFile
from support.tiny_model import Tiny
from support.tiny_model_files import write


def with_mean(axes: list[int], rank: int | None, **options: Any) -> onnx.ModelProto:
    """Return a tiny model that adds a mean of its second layer's input to that input."""
    model = Tiny().proto()
    place, layer = next((i, node) for i, node in enumerate(model.graph.node) if node.output[0] == "c2")
    source = layer.input[0]
    nodes = [
        helper.make_node("ReduceMean", [source, "axes"], ["mean"], **options),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Add", [source, "column"], ["sum"]),
    ]
    for i, node in enumerate(nodes):
        model.graph.node.insert(place + i, node)
    model.graph.node[place + len(nodes)].input[0] = "sum"
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            numpy_helper.from_array(np.array([-1, 1, 1, 1]), "shape"),
        ]
    )
    if rank is not None:
        model.graph.value_info.append(helper.make_tensor_value_info(source, TensorProto.FLOAT, [None] * rank))
    return model


@pytest.mark.parametrize(
    ("axes", "rank", "options", "operator"),
    [
        ([2, 3], 4, {}, "GlobalAveragePool"),
        ([-1, -2], 4, {"keepdims": 1}, "GlobalAveragePool"),
        ([3, -2], 4, {"noop_with_empty_axes": 1}, "GlobalAveragePool"),
        ([2, 3], 4, {"keepdims": 0}, "ReduceMean"),
        ([2, 3], None, {}, "ReduceMean"),
        ([2, 3], 5, {}, "ReduceMean"),
        ([-1, -2], 3, {}, "ReduceMean"),
        ([3], 4, {}, "ReduceMean"),
        ([1, 2, 3], 4, {}, "ReduceMean"),
        ([1, 2], 4, {}, "ReduceMean"),
        ([], 4, {}, "ReduceMean"),
        ([], 4, {"noop_with_empty_axes": 1}, "ReduceMean"),
    ],
)
def test_only_means_over_height_and_width_become_pools(
    axes: list[int], rank: int | None, options: dict[str, int], operator: str, tmp_path: Path
) -> None:
    file = ModelFile.read(write(tmp_path / "model.onnx", with_mean(axes, rank, **options)))
    found = next(node for node in read_backbone(file).model.graph.node if node.output[0] == "mean")
    assert found.op_type == operator
    assert len(found.input) == (1 if operator == "GlobalAveragePool" else 2)
    assert not (operator == "GlobalAveragePool" and found.attribute)
