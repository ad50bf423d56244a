"""Tests of `seewhy.explainer.shuffled_stages`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer, ModelFileError
from seewhy.contract.metadata import ParameterGroup
from seewhy.explainer.shuffled_stages import CASCADING, INDEPENDENT, ShuffledStages, split_into_stages
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import pixels, write

GROUPS = [
    {"module": name, "tensors": [f"{name}.weight", f"{name}.bias"]} for name in ("fc", "conv2", "conv1")
]  # fmt: skip


@pytest.fixture
def listed(tmp_path: Path) -> Explainer:
    return Explainer(write(tmp_path / "listed.onnx", set_property(Tiny().proto(), "parameters", GROUPS)), threads=1)


@pytest.mark.parametrize(
    ("modules", "most", "sizes"),
    [(3, 16, [1, 1, 1]), (16, 16, [1] * 16), (33, 16, [2] * 15 + [3]), (5, 2, [2, 3]), (7, 3, [2, 2, 3]), (1, 1, [1])],
)
def test_stages_are_consecutive_and_nearly_equal(modules: int, most: int, sizes: list[int]) -> None:
    groups = [ParameterGroup(str(i), (f"{i}.weight",)) for i in range(modules)]
    stages = split_into_stages(groups, most)
    assert [len(stage) for stage in stages] == sizes
    assert [group for stage in stages for group in stage] == groups


@pytest.mark.parametrize("order", [CASCADING, INDEPENDENT])
def test_explainers_of_the_stages(order: str, listed: Explainer) -> None:
    stages = ShuffledStages(listed, order, seed=4)
    assert stages.modules == (("fc",), ("conv2",), ("conv1",))
    tensors: list[str] = []
    for stage, group in enumerate(GROUPS):
        tensors = [*(tensors if order == CASCADING else []), *group["tensors"]]
        expected = listed.with_shuffled_parameters(tensors, 4).predict(pixels(2)).logits
        np.testing.assert_array_equal(stages[stage].predict(pixels(2)).logits, expected)


def test_fewer_stages_shuffle_several_modules(listed: Explainer) -> None:
    stages = ShuffledStages(listed, most=2)
    assert len(stages) == 2 and stages.modules == (("fc",), ("conv2", "conv1"))


def test_sessions_beyond_the_limit_are_released(listed: Explainer) -> None:
    listed.predict(pixels(1))
    each = listed.session_bytes
    stages = ShuffledStages(listed, limit=2 * each)
    for _image in range(2):
        for stage in range(3):
            stages[stage].predict(pixels(1))
            stages.release(stage)
        assert [stages[stage].session_bytes for stage in range(3)] == [each, each, 0]


def test_an_older_file_is_refused(model_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"tiny\.onnx: the file does not list its parameters.*export the network again"
    ):
        ShuffledStages(Explainer(model_path))


def test_a_file_without_parameters_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", set_property(Tiny().proto(), "parameters", []))
    with pytest.raises(ModelFileError, match="the file has no parameters"):
        ShuffledStages(Explainer(path))


def test_listed_parameters_must_exist(tmp_path: Path) -> None:
    groups = [{"module": "fc", "tensors": ["fc.weight", "head.bias"]}]
    path = write(tmp_path / "m.onnx", set_property(Tiny().proto(), "parameters", groups))
    with pytest.raises(ModelFileError, match="lists the parameter 'head.bias', but the graph has no such weight"):
        Explainer(path)
