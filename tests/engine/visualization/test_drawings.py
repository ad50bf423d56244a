"""Tests of `seewhy.visualization.drawings`: the pixels of each style, computed by hand, and the scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer
from seewhy.contract.metadata import Preprocessing
from seewhy.visualization.colormaps import palette
from seewhy.visualization.drawings import draw_gradient, draw_map, robust_limit
from seewhy.visualization.figure_style import FigureStyle
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def test_minmax_gradient_by_hand(explainer: Explainer, make_image: MakeImage) -> None:
    """The style of the report: the minimum of the whole image is 0, its maximum 255."""
    result = explainer.explain([make_image(), make_image(seed=3)], method="backprop")
    figures = result.figures(gradient_scaling="minmax", plain=True)
    for values, figure in zip(result.attributions.astype(np.float64), figures, strict=True):
        scaled = np.rint((values - values.min()) / (values.max() - values.min()) * 255).transpose(1, 2, 0)
        assert np.abs(pixels(figure) - scaled).max() <= 1
        assert pixels(figure).min() == 0 and pixels(figure).max() == 255


@pytest.mark.parametrize("scale", [None, 0.7])
def test_robust_gradient_by_hand(explainer: Explainer, make_image: MakeImage, scale: float | None) -> None:
    result = explainer.explain([make_image(), make_image(seed=3)], method="guided-backprop")
    for values, figure in zip(
        result.attributions.astype(np.float64), result.figures(plain=True, scale=scale), strict=True
    ):
        limit = scale or np.quantile(np.abs(values), 0.98, method="inverted_cdf")
        expected = np.clip(values / limit, -1, 1).transpose(1, 2, 0) * 127.5 + 127.5
        assert np.abs(pixels(figure) - expected).max() <= 0.51
    zeros = draw_gradient(result.images[0], np.zeros((3, 12, 16), np.float32), FigureStyle())
    assert (pixels(zeros.image) == 128).all() and zeros.scale.remark == "0 everywhere"


def test_robust_limit() -> None:
    """The limit is NumPy's quantile without interpolation, and the maximum if most values are 0."""
    random = np.random.default_rng(0)
    for size in (1, 49, 50, 51, 1000, 3 * 224 * 224):
        values = random.standard_normal(size).astype(np.float32)
        assert robust_limit(values) == np.quantile(np.abs(values), 0.98, method="inverted_cdf")
    values = np.zeros(1000, np.float32)
    values[3] = -7
    assert robust_limit(values) == 7 and robust_limit(np.zeros(9, np.float32)) == 0


@pytest.mark.parametrize("scaling", ["robust", "minmax"])
def test_gradient_heatmaps_and_overlays_by_hand(explainer: Explainer, make_image: MakeImage, scaling: str) -> None:
    result = explainer.explain(make_image(), method="backprop")
    strength = np.abs(result.attributions[0].astype(np.float64)).max(axis=0)
    if scaling == "robust":
        heat = np.minimum(strength / np.quantile(strength, 0.98, method="inverted_cdf"), 1)
    else:
        heat = (strength - strength.min()) / (strength.max() - strength.min())
    colors = palette("viridis")[np.rint(255 * heat).astype(int)].astype(float)
    (found,) = result.figures("viridis", gradients="heatmap", gradient_scaling=scaling, plain=True)
    # A heat between two entries may be rounded either way; neighbouring colours of viridis differ by at most 4.
    assert np.abs(pixels(found) - colors).max() <= 4
    (found,) = result.figures("viridis", 0.25, gradients="overlay", gradient_scaling=scaling, plain=True)
    assert np.abs(pixels(found) - (0.25 * colors + 0.75 * result.images[0].view)).max() <= 1.6


def test_blend_that_follows_the_heat(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image())
    heat = result.heatmaps[0].astype(np.float64)[..., None]
    colors = palette("inferno")[np.rint(255 * heat[..., 0]).astype(int)]
    for alpha in (None, 0.4):
        opacity = heat * (alpha or 0.8)
        expected = opacity * colors + (1 - opacity) * result.images[0].view
        (found,) = result.overlays(alpha=alpha, blend="heat")
        assert np.abs(pixels(found) - expected).max() <= 2
    coldest = np.unravel_index(result.heatmaps[0].argmin(), result.heatmaps[0].shape)
    assert np.array_equal(np.asarray(found)[coldest], result.images[0].view[coldest])


def test_common_scale_of_maps(explainer: Explainer, make_image: MakeImage) -> None:
    """With a scale, heat is the raw value over the scale, so a map of half the strength has half the heat."""
    result = explainer.explain([make_image(), make_image(seed=4)], method="cam")
    top = float(result.attributions.max())
    for scale in (top, 2 * top):
        for i, found in enumerate(result.overlays("grey", 1, scale=scale)):
            expected = 255 * np.clip(result.attributions[i] / scale, 0, 1)
            assert np.abs(pixels(found)[..., 0] - expected).max() <= 0.51
    strong = max(pixels(one).max() for one in result.overlays("grey", 1, scale=top))
    weak = max(pixels(one).max() for one in result.overlays("grey", 1, scale=2 * top))
    assert (strong, weak) == (255, 128)


def test_scales_tell_the_values(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image())
    raw = result.attributions[0]
    (drawing,) = result.draw(FigureStyle())
    assert (drawing.scale.low, drawing.scale.high) == (raw.min(), raw.max())
    assert drawing.scale.note == "scaled to its own range" and drawing.scale.remark == ""
    (drawing,) = result.draw(FigureStyle(scale=9))
    assert (drawing.scale.low, drawing.scale.high) == (0, 9)
    assert drawing.scale.note == f"on a common scale, max {raw.max():.3g}"
    gradient = explainer.explain(make_image(), "backprop")
    (drawing,) = gradient.draw(FigureStyle())
    limit = np.quantile(np.abs(gradient.attributions), 0.98, method="inverted_cdf")
    assert (-drawing.scale.low, drawing.scale.high) == (limit, limit)
    assert drawing.scale.note == f"clipped at 98 % of |values|, max {np.abs(gradient.attributions).max():.3g}"


@pytest.mark.parametrize(("value", "remark"), [(0, "0 everywhere"), (0.25, "0.25 everywhere")])
def test_constant_maps(explainer: Explainer, make_image: MakeImage, value: float, remark: str) -> None:
    view = explainer.explain(make_image()).images[0]
    drawing = draw_map(view, np.full((12, 16), value, np.float32), FigureStyle())
    assert drawing.scale.remark == remark
    cold = 0.5 * palette("inferno")[0] + 0.5 * view.view
    assert np.abs(pixels(drawing.image) - cold).max() <= 0.5


@pytest.mark.filterwarnings("error")
def test_extreme_values(explainer: Explainer, make_image: MakeImage) -> None:
    view = explainer.explain(make_image()).images[0]
    random = np.random.default_rng(0)
    for factor in (1e-45, 1e-38, 1e38):
        values = (random.uniform(-1, 1, (3, 12, 16)) * factor).astype(np.float32)
        for style in (FigureStyle(), FigureStyle(gradients="heatmap"), FigureStyle(scale=1), FigureStyle(scale=1e-30)):
            assert np.asarray(draw_gradient(view, values, style).image).shape == (12, 16, 3)
            assert np.asarray(draw_map(view, values[0], style).image).shape == (12, 16, 3)


def test_drawing_changes_figures_only(explainer: Explainer, make_image: MakeImage) -> None:
    """Heatmaps and stored arrays stay those of plain min-max scaling, whatever is drawn."""
    for method in ("gradcam", "backprop"):
        before, after = (explainer.explain(make_image(), method) for _ in range(2))
        for style in ({"scale": 0.1}, {"gradients": "heatmap"}, {"gradient_scaling": "minmax"}, {"blend": "heat"}):
            after.figures(**style)  # type: ignore[arg-type]
        strength = after.attributions[0] if method == "gradcam" else np.abs(after.attributions[0]).max(axis=0)
        expected = (strength - strength.min()) / (strength.max() - strength.min())
        assert np.abs(after.heatmaps[0] - expected).max() < 1e-6
        for name, array in before.arrays_of(0).items():
            assert np.array_equal(after.arrays_of(0)[name], array), name


def test_gradients_with_an_unsupported_channel_count(tmp_path: Path) -> None:
    model = Tiny(channels=4, preprocessing=Preprocessing(mean=(0.0,) * 4, std=(1.0,) * 4))
    explainer = Explainer(model.save(tmp_path / "four.onnx"))
    result = explainer.explain(np.random.default_rng(0).random((1, 4, 12, 16), np.float32), "backprop")
    with pytest.raises(ArgumentError, match="must have 1 or 3 channels to be drawn as RGB, not 4; draw them"):
        result.figures()
    assert len(result.figures(gradients="heatmap")) == 1
