"""Tests of exports of well-known networks at their own sizes, with live random weights.

Each export verifies itself in float64.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import seewhy
from seewhy_export import export
from seewhy_export.verification.parity import agrees, untested_outputs
from support.exporting.networks import torchvision_network

slow = pytest.mark.slow
NETWORKS = [
    ("alexnet", 224, {"relu": 7}),
    ("resnet18", 224, {"relu": 17}),
    ("squeezenet1_1", 224, {"relu": 26}),
    ("mobilenet_v2", 224, {"relu6": 35}),
    ("mnasnet0_5", 224, {"relu": 35}),
    ("shufflenet_v2_x0_5", 224, {"relu": 37}),
    pytest.param("vgg16", 224, {"relu": 15}, marks=slow),
    pytest.param("resnet50", 224, {"relu": 49}, marks=slow),
    pytest.param("densenet121", 224, {"relu": 121}, marks=slow),
    pytest.param("googlenet", 224, {"relu": 57}, marks=slow),
    pytest.param("inception_v3", 299, {"relu": 94}, marks=slow),
]


@pytest.mark.parametrize(("name", "size", "rectifiers"), NETWORKS)
def test_exports_and_agrees(name: str, size: int, rectifiers: dict[str, int], tmp_path: Path) -> None:
    report = export(torchvision_network(name), tmp_path / "model.onnx", image_size=(size, size))
    assert dict(report.rectifiers.kinds) == rectifiers
    assert report.rectifiers.guided == sum(rectifiers.values())
    assert all(agrees(errors) for kinds in report.parity.values() for errors in kinds.values())
    assert untested_outputs(report.parity) == []
    explainer = seewhy.Explainer(report.path)
    has_cam = "class_weights" in report.outputs
    assert ("cam" in explainer.methods) is has_cam
    assert has_cam is (name not in ("alexnet", "vgg16", "squeezenet1_1"))


def test_efficientnet_lite0_with_its_real_weights(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("skimage")
    from skimage import data

    from seewhy_export.demo import efficientnet_lite0

    source = efficientnet_lite0()
    path = tmp_path / "model.onnx"
    report = export(source.module, path, source.image_size, labels=source.labels, preprocessing=source.preprocessing)
    assert dict(report.rectifiers.kinds) == {"relu6": 33} and report.rectifiers.guided == 33
    assert untested_outputs(report.parity) == []
    explainer = seewhy.Explainer(path)
    folder = Path(data.__file__).parent
    paths = [str(folder / name) for name in ("chelsea.png", "coffee.png", "motorcycle_left.png")]
    result = explainer.explain(paths)
    assert 281 <= result.targets[0] <= 285, "a cat"
    assert explainer.labels[result.targets[1]] == "espresso"
    assert explainer.labels[result.targets[2]] in ("moped", "motor scooter")
    # Boxes (top, bottom, left, right) of the cat's face, the cup and the motorcycle in the 224x224 input.
    for heat, (top, bottom, left, right) in zip(
        result.heatmaps, [(40, 224, 20, 210), (10, 145, 30, 190), (55, 180, 10, 200)], strict=True
    ):
        row, column = divmod(int(heat.argmax()), 224)
        assert top <= row < bottom and left <= column < right
        assert (heat > 0.5)[top:bottom, left:right].sum() >= 0.9 * (heat > 0.5).sum()
