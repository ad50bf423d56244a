"""Tests of the metrics of localisation on a network whose attributions are known, and against literal references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from seewhy._shared.arrays import Bytes
from seewhy.contract.metadata import Metadata
from seewhy.metrics.base import EvaluatedMethod, NotMeasurable, Scope
from seewhy.metrics.grid_pointing import GRID_POINTING, cells, grid
from seewhy.metrics.metric import Metric
from seewhy.metrics.pointing import POINTING as METRICS
from support.color_network import SIZE, color_image
from support.evaluated import evaluated, measure
from support.tiny_model import Tiny

POINTING, ENERGY = METRICS
METHODS = ("gradcam", "inputxgradient", "inverted-cam", "inverted-ixg")
# True, random and inverted maps: Grad-CAM is unsigned, input x gradient is signed.
ORDERS = (("gradcam", "random", "inverted-cam"), ("inputxgradient", "random", "inverted-ixg"))


def others(color: int) -> Callable[[int], Sequence[tuple[Bytes, int]]]:
    """Return the function `partners`: images of the other colors."""
    return lambda count: [(color_image(one, one), one) for one in range(4) if one != color][:count]


def object_at(random: np.random.Generator) -> np.ndarray:
    """Return a random box as a mask. Its edges are those of windows of the max pooling."""
    mask = np.zeros((SIZE[0] // 2, SIZE[1] // 2), np.bool_)
    height, width = random.integers(5, 9, 2)
    y, x = random.integers(0, mask.shape[0] - height), random.integers(0, mask.shape[1] - width)
    mask[y : y + height, x : x + width] = True
    return mask.repeat(2, axis=0).repeat(2, axis=1)


def interval(values: list[float]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the mean."""
    random = np.random.default_rng(0)
    means = [random.choice(values, len(values)).mean() for _ in range(500)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.usefixtures("inverted")
@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (GRID_POINTING, {"layout": "2x2"}),
        (GRID_POINTING, {"layout": "2x1"}),
        (POINTING, {"tolerance": 1}),
        (ENERGY, {}),
    ],
    ids=["2x2", "2x1", "pointing", "energy-pointing"],
)
def test_true_maps_beat_random_ones_and_those_beat_inverted_ones(
    colors: Explainer, metric: Metric, options: dict[str, object]
) -> None:
    values: dict[str, list[float]] = {}
    for seed in range(60):
        color = seed % 4
        mask = object_at(np.random.default_rng(seed))
        view = color_image(color, seed, None if metric is GRID_POINTING else mask)
        (image,) = colors.preprocess([view])
        more = {"view": view, "target": color, "regions": mask, "partners": others(color)}
        for name, one in evaluated(colors, image, METHODS, name=f"image {seed}", **more).items():
            values.setdefault(name, []).append(measure(metric, one, **options).value)
    found = {name: interval(each) for name, each in values.items()}
    for best, random, worst in ORDERS:
        assert found[best][0] > found[random][1] and found[random][0] > found[worst][1], found


# Grid pointing.


@pytest.mark.parametrize(
    ("layout", "size", "expected"),
    [
        ("2x2", (32, 32), [(0, 16, 0, 16), (0, 16, 16, 32), (16, 32, 0, 16), (16, 32, 16, 32)]),
        ("2x2", (5, 7), [(0, 2, 0, 3), (0, 2, 3, 7), (2, 5, 0, 3), (2, 5, 3, 7)]),
        ("2x1", (32, 32), [(0, 32, 0, 16), (0, 32, 16, 32)]),
        ("2x1", (12, 16), [(0, 12, 0, 8), (0, 12, 8, 16)]),
        ("2x1", (16, 12), [(0, 8, 0, 12), (8, 16, 0, 12)]),
    ],
)
def test_cells(layout: str, size: tuple[int, int], expected: list[tuple[int, ...]]) -> None:
    assert [(r.start, r.stop, c.start, c.stop) for r, c in cells(layout, *size)] == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_views_in_a_grid_keep_their_aspect_ratio(channels: int) -> None:
    """Draw a bright square of 8 x 8 pixels in the middle of each view."""
    views = [np.full((32, 32, channels), 10 * i, np.uint8) for i in range(4)]
    for view in views:
        view[12:20, 12:20] = 255
    halved = grid(views, "2x2")
    kept = grid(views[:2], "2x1")
    assert halved.shape == kept.shape == (32, 32, channels)
    for i, (rows, columns) in enumerate(cells("2x2", 32, 32)):
        bright = halved[rows, columns, 0] > 128
        assert np.argwhere(bright).tolist() == [[y, x] for y in range(6, 10) for x in range(6, 10)]
        assert halved[rows, columns, 0][0, 0] == 10 * i
    for i, (rows, columns) in enumerate(cells("2x1", 32, 32)):
        assert np.array_equal(kept[rows, columns], views[i][:, 8:24])


def test_the_share_of_the_targets_cell(colors: Explainer) -> None:
    """Explain the grid separately, and sum by hand."""
    view = color_image(2, 0)
    (image,) = colors.preprocess([view])
    one = evaluated(colors, image, ["inputxgradient"], view=view, target=2, partners=others(2))["inputxgradient"]
    found = measure(GRID_POINTING, one)
    cell = found.details["cell"]
    parts = [view for view, _ in others(2)(3)]
    parts.insert(cell, view)
    whole = np.zeros((32, 32, 3), np.uint8)
    for i, part in enumerate(parts):  # the mean of 2 x 2 pixels is nearly what antialiased halving gives
        small = part.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        whole[16 * (i // 2) : 16 * (i // 2 + 1), 16 * (i % 2) : 16 * (i % 2 + 1)] = np.rint(small)
    positive = colors.explain([whole], "inputxgradient", target=2).attributions[0].sum(axis=0).clip(0)
    inside = positive[16 * (cell // 2) : 16 * (cell // 2 + 1), 16 * (cell % 2) : 16 * (cell % 2 + 1)].sum()
    assert found.value == pytest.approx(inside / positive.sum(), abs=0.02)


def test_the_grid_is_normalised_as_images_are(tmp_path: Path) -> None:
    """Record the grid with a method that returns the preprocessed pixels."""
    explainer = Explainer(Tiny(size=(32, 32)).save(tmp_path / "tiny.onnx"), threads=1)
    view = color_image(0, 0)
    (image,) = explainer.preprocess([view])
    one = evaluated(explainer, image, ["backprop"], view=view, target=0, partners=others(0))["backprop"]
    measure(GRID_POINTING, one)
    cell = measure(GRID_POINTING, one).details["cell"]
    parts = [part for part, _ in others(0)(3)]
    parts.insert(cell, view)
    expected = explainer.explain([grid(parts, "2x2")], "backprop", target=0).attributions
    assert np.array_equal(one.image.explained(("grid", "2x2"), lambda: image[None])["backprop"], expected)


def test_cells_of_images_differ_and_repeat(colors: Explainer) -> None:
    def cell(name: str) -> int:
        view = color_image(0, 0)
        (image,) = colors.preprocess([view])
        one = evaluated(colors, image, ["gradcam"], view=view, target=0, partners=others(0), name=name)["gradcam"]
        return int(measure(GRID_POINTING, one).details["cell"])

    drawn = [cell(f"image {i}") for i in range(20)]
    assert set(drawn) == {0, 1, 2, 3} and drawn == [cell(f"image {i}") for i in range(20)]


@pytest.mark.usefixtures("inverted")
def test_a_grid_without_a_value(colors: Explainer) -> None:
    view = color_image(0, 0)
    (image,) = colors.preprocess([view])
    alone = evaluated(colors, image, ["gradcam"], view=view, target=0)["gradcam"]
    with pytest.raises(NotMeasurable, match="no images of other classes"):
        measure(GRID_POINTING, alone)
    gray = lambda count: [(np.full((*SIZE, 3), 60, np.uint8), i) for i in range(count)]  # noqa: E731
    view = np.full((*SIZE, 3), 60, np.uint8)
    blank = evaluated(colors, colors.preprocess([view])[0], ["gradcam"], view=view, target=0, partners=gray)["gradcam"]
    with pytest.raises(NotMeasurable, match="the map has no positive values"):
        measure(GRID_POINTING, blank)


def test_where_a_grid_does_not_apply(explainer: Explainer) -> None:
    scope = Scope(explainer.metadata)
    method = EvaluatedMethod("gradcam", "Grad-CAM", True, "sum", explainer.resolve_methods("gradcam")[0])
    external = EvaluatedMethod("mine", "mine", True, "sum")
    options = {"layout": "2x2"}
    assert GRID_POINTING.unsuitable(method, scope, options) is None
    assert "files" in str(GRID_POINTING.unsuitable(external, scope, options))

    def changed(**changes: object) -> Metadata:
        return replace(explainer.metadata, **changes)  # type: ignore[arg-type]

    assert "single class" in str(GRID_POINTING.unsuitable(method, Scope(changed(class_count=1)), options))
    assert "normalised" in str(GRID_POINTING.unsuitable(method, Scope(changed(preprocessing=None)), options))


# Pointing with boxes or masks.


def torchray_hit(mask: np.ndarray, point: tuple[int, int], tolerance: int) -> bool:
    """Return the decision of TorchRay's `PointingGame.evaluate`, pixel by pixel; `point` is (column, row)."""
    for v in range(mask.shape[0]):
        for u in range(mask.shape[1]):
            if mask[v, u] and (u - point[0]) ** 2 + (v - point[1]) ** 2 < tolerance**2:
                return True
    return False


def pointed(explainer: Explainer, one: np.ndarray, regions: np.ndarray | None) -> object:
    image = np.zeros((3, *one.shape), np.float32)
    return evaluated(explainer, image, maps={"given": one}, target=0, regions=regions)["given"]


def test_pointing_decides_as_torchray(explainer: Explainer) -> None:
    random = np.random.default_rng(3)
    hits = []
    for _ in range(200):
        one = random.standard_normal((12, 16)).astype(np.float32)
        mask = np.zeros((12, 16), np.bool_)
        y, x = random.integers(0, 9), random.integers(0, 13)
        mask[y : y + random.integers(1, 4), x : x + random.integers(1, 4)] = True
        tolerance = int(random.integers(1, 8))
        row, column = np.unravel_index(one.argmax(), one.shape)
        found = measure(POINTING, pointed(explainer, one, mask), tolerance=tolerance)  # type: ignore[arg-type]
        assert found.value == torchray_hit(mask, (int(column), int(row)), tolerance)
        assert found.details == {"point": [column, row]}
        hits.append(found.value)
    assert 50 < sum(hits) < 150


@pytest.mark.parametrize(("distance", "hit"), [(14, 1), (15, 0)])
def test_the_tolerance_is_15_pixels(explainer: Explainer, distance: int, hit: float) -> None:
    one, mask = np.zeros((12, 16), np.float32), np.zeros((12, 16), np.bool_)
    one[5, 0], mask[5, distance] = 1, True
    assert measure(POINTING, pointed(explainer, one, mask)).value == hit  # type: ignore[arg-type]


def test_the_first_of_equal_maxima_counts(explainer: Explainer) -> None:
    one, mask = np.zeros((12, 16), np.float32), np.zeros((12, 16), np.bool_)
    one[2, 9] = one[8, 3] = 1
    mask[8, 3] = True
    assert measure(POINTING, pointed(explainer, one, mask), tolerance=1).value == 0  # type: ignore[arg-type]
    assert measure(POINTING, pointed(explainer, one[::-1].copy(), mask[::-1]), tolerance=1).value == 1  # type: ignore[arg-type]


def test_energy_inside_the_objects(explainer: Explainer) -> None:
    one, mask = np.zeros((12, 16), np.float32), np.zeros((12, 16), np.bool_)
    mask[:, :8] = True
    one[0, 0], one[1, 8], one[2, 0] = 3, 1, -5  # the negative value does not count
    assert measure(ENERGY, pointed(explainer, one, mask)).value == pytest.approx(3 / 4)  # type: ignore[arg-type]
    constant = np.ones((12, 16), np.float32)
    assert measure(ENERGY, pointed(explainer, constant, mask)).value == pytest.approx(1 / 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "level", "regions", "reason"),
    [
        (POINTING, 1.0, np.ones((12, 16), np.bool_), "the map is constant"),
        (ENERGY, -1.0, np.ones((12, 16), np.bool_), "the map has no positive values"),
        (POINTING, 1.0, None, "no box or mask of the target class is given for this image"),
        (ENERGY, 1.0, None, "no box or mask of the target class is given for this image"),
        (POINTING, 1.0, np.zeros((12, 16), np.bool_), "no pixel of the model's view lies in a box or mask"),
        (ENERGY, 1.0, np.zeros((12, 16), np.bool_), "no pixel of the model's view lies in a box or mask"),
    ],
)
def test_pointing_without_a_value(
    explainer: Explainer, metric: Metric, level: float, regions: np.ndarray | None, reason: str
) -> None:
    with pytest.raises(NotMeasurable, match=reason):
        measure(metric, pointed(explainer, np.full((12, 16), level, np.float32), regions))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_pointing_needs_regions(explainer: Explainer, metric: Metric) -> None:
    method = EvaluatedMethod("mine", "mine", True, "sum")
    assert "no boxes or masks" in str(metric.unsuitable(method, Scope(explainer.metadata), {}))
    assert metric.unsuitable(method, Scope(explainer.metadata, has_regions=True), {}) is None
