"""Tests of `seewhy.visualization`: overlays, images of gradients, colormaps, and figures of the whole image."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import ArgumentError, Explainer, ImageError
from seewhy.contract.metadata import Preprocessing
from seewhy.images.preprocessing import load_image
from seewhy.images.resizing import Placement
from seewhy.visualization.colormaps import palette
from seewhy.visualization.drawing_options import COLORMAPS
from seewhy.visualization.figure_style import FigureStyle
from seewhy.visualization.overlays import overlays_in_style
from support import tiny_model_files
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]
CROPPING = Preprocessing("shorter-side", 20, "bilinear")


@pytest.mark.parametrize("name", [name for name in COLORMAPS if name != "grey"])
def test_colormaps_equal_matplotlib(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    assert np.array_equal(palette(name), matplotlib.colormaps[name](range(256), bytes=True)[:, :3])


@pytest.mark.parametrize("name", COLORMAPS)
def test_colormaps_are_complete_and_read_only(name: str) -> None:
    table = palette(name)
    assert table.shape == (256, 3) and table.dtype == np.uint8 and table.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1
    assert palette("grey")[[0, 128, 255], 1].tolist() == [0, 128, 255]


def test_list_colormaps() -> None:
    assert seewhy.list_colormaps() == list(COLORMAPS)
    for name in seewhy.list_colormaps():
        palette(name)


@pytest.mark.parametrize("name", ["inferno", "magma", "plasma", "viridis", "cividis", "grey"])
def test_lightness_rises_evenly(name: str) -> None:
    """CIE lightness never falls from low to high heat, by the formula for sRGB. It does fall in jet and turbo."""

    def lightness(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        encoded = table / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        luminance = linear @ (0.2126, 0.7152, 0.0722)
        return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)

    assert np.diff(lightness(palette(name))).min() > -0.05
    assert np.diff(lightness(palette("jet"))).min() < -1


def test_default_drawing_options(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image())
    expected = np.asarray(result.overlays("inferno", 0.5, "model")[0])
    assert np.array_equal(np.asarray(result.overlays()[0]), expected)
    assert np.array_equal(np.asarray(result.figures(plain=True)[0]), expected)


def test_unknown_colormap() -> None:
    with pytest.raises(
        ArgumentError, match="Unknown colormap 'rainbow'; choose one of inferno, magma, plasma, viridis"
    ):
        palette("rainbow")


@pytest.mark.parametrize("colormap", ["jet", "grey"])
@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_overlay_by_hand(explainer: Explainer, make_image: MakeImage, colormap: str, alpha: float) -> None:
    result = explainer.explain([make_image(seed=1), make_image(seed=2)], target=[[0, 1], [2, 3]])
    drawn = result.overlays(colormap, alpha)
    assert len(drawn) == 4
    for i in range(2):
        for k in range(2):
            colours = palette(colormap)[np.rint(255 * result.heatmaps[i, k].astype(np.float64)).astype(int)]
            exact = alpha * colours + (1 - alpha) * result.images[i].view
            # Values are rounded to nearest; exactly one half may be rounded up or down.
            assert np.abs(np.asarray(drawn[2 * i + k]) - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_overlays_need_no_heatmaps(explainer: Explainer, make_image: MakeImage, method: str) -> None:
    """Overlays are drawn from the maps in one pass and have the same bytes. The maps of CAM have no ReLU."""
    result = explainer.explain([make_image(seed=1), make_image(seed=2)], method, target=[[0, 1], [2, 3]])
    drawn = result.overlays("turbo", 0.4)
    assert not {"attributions", "heatmaps"} & set(vars(result))
    images = [image for image in result.images for _ in range(2)]
    heatmaps = result.heatmaps.reshape(-1, *result.heatmaps.shape[2:])
    expected = overlays_in_style(images, heatmaps, FigureStyle("turbo", 0.4))
    for one, other in zip(drawn, expected, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert "heatmaps" in vars(result)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_wrong_alpha(explainer: Explainer, make_image: MakeImage, alpha: float) -> None:
    with pytest.raises(ArgumentError, match="alpha must be between 0 and 1"):
        explainer.explain(make_image()).overlays(alpha=alpha)


def test_wrong_canvas(explainer: Explainer, make_image: MakeImage) -> None:
    with pytest.raises(ArgumentError, match="Unknown canvas 'wall'; choose one of model, original"):
        explainer.explain(make_image()).overlays(canvas="wall")


# The whole image.


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """Resize the shorter side to 20 pixels, then crop the central 12x16."""
    return Explainer(Tiny(preprocessing=CROPPING).save(tmp_path_factory.mktemp("m") / "crop.onnx"))


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (20, 20), (16, 12), (7, 9), (640, 480), (2, 300)])
def test_only_what_the_model_saw_is_drawn_on(cropping: Explainer, make_image: MakeImage, size: tuple[int, int]) -> None:
    image = make_image(*size)
    result = cropping.explain(image)
    assert result.heatmaps.max() == 1
    before = np.asarray(image)
    found = np.asarray(result.overlays("grey", 1, "original")[0])
    assert found.shape == before.shape
    # Compute the edges of the view on the image from the resize and crop rules, not from the placement.
    width, height = size
    scale = min(size) / 20
    long = int(20 * max(size) / min(size))
    resized = (20, long) if width <= height else (long, 20)
    left, top = round((resized[0] - 16) / 2), round((resized[1] - 12) / 2)
    x = (np.arange(width) + 0.5) / (width / resized[0])
    y = (np.arange(height) + 0.5) / (height / resized[1])
    inside = ((y >= top) & (y < top + 12))[:, None] & ((x >= left) & (x < left + 16))[None]
    assert inside.any() and scale > 0
    assert np.array_equal(found[~inside], before[~inside])
    # With alpha 1 and the colormap grey, the heatmap itself is drawn, so all pixels are grey.
    assert (found[inside] == found[inside][:, :1]).all()


def test_heat_lands_where_the_model_saw_it(cropping: Explainer) -> None:
    """A single hot pixel of the view is drawn at the matching place of a large image."""
    array = np.zeros((400, 600, 3), np.uint8)
    image = load_image(array, cropping.metadata)
    heat = np.zeros((1, 12, 16), np.float32)
    heat[0, 3, 10] = 1
    found = np.asarray(overlays_in_style([image], heat, FigureStyle("grey", 1.0, "original"))[0])[..., 0].astype(float)
    rows, columns = np.arange(400) + 0.5, np.arange(600) + 0.5
    y, x = np.average(rows, weights=found.sum(axis=1)), np.average(columns, weights=found.sum(axis=0))
    # The image is resized from 600x400 to 30x20, and the view starts at column 7 and row 4 of that.
    assert (x, y) == pytest.approx(((7 + 10.5) * 20, (4 + 3.5) * 20), abs=1)


def test_squashed_view_covers_everything(explainer: Explainer, make_image: MakeImage) -> None:
    image = make_image(64, 48)  # four times the model's input of 16x12
    result = explainer.explain(image)
    found = np.asarray(result.overlays("grey", 1, "original")[0])[..., 0].astype(float)
    heat = Image.fromarray(result.heatmaps[0]).resize((64, 48), Image.Resampling.BILINEAR)
    assert np.abs(found - 255 * np.asarray(heat)).max() <= 1


def test_padding_of_the_view_is_not_drawn(tmp_path: Path, make_image: MakeImage) -> None:
    """An image smaller than the crop is padded with black; the padding is not part of the original image."""
    explainer = Explainer(Tiny(preprocessing=Preprocessing("none")).save(tmp_path / "pad.onnx"))
    image = make_image(9, 5)
    result = explainer.explain(image)
    assert result.images[0].placement == Placement(-3, -3, 1, 1)
    found = np.asarray(result.overlays("grey", 1, "original")[0])[..., 0].astype(float)
    assert found.shape == (5, 9)
    assert np.abs(found - 255 * result.heatmaps[0][3:8, 3:12]).max() <= 1


def test_original_that_was_deleted_or_changed(cropping: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    make_image().save(path)
    result = cropping.explain(path)
    path.unlink()
    assert result.overlays()
    with pytest.raises(ImageError, match=r"x\.png: cannot be read"):
        result.overlays(canvas="original")
    make_image(50, 31).save(path)
    with pytest.raises(ImageError, match=r"x\.png: the file has changed since it was explained"):
        result.overlays(canvas="original")


def test_original_that_was_replaced(cropping: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    """The replacement has the same size in pixels and bytes and the same modification time."""
    path = tmp_path / "x.bmp"
    make_image(seed=1).save(path)
    result = cropping.explain(path)
    whole = np.asarray(result.overlays(canvas="original")[0])
    times = path.stat()
    make_image(seed=2).save(tmp_path / "other.bmp")
    path.write_bytes((tmp_path / "other.bmp").read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    with pytest.raises(ImageError, match=r"x\.bmp: the file has changed since it was explained"):
        result.overlays(canvas="original")
    assert np.array_equal(np.asarray(cropping.explain(make_image(seed=1)).overlays(canvas="original")[0]), whole)


@pytest.mark.parametrize("kind", ["array", "grey array", "image", "frames"])
def test_changing_an_image_after_explain_does_not_change_its_overlay(
    cropping: Explainer, make_image: MakeImage, kind: str
) -> None:
    """A program that reads a camera may reuse the same array for every frame."""
    first, second = make_image(seed=1), make_image(seed=2)
    image: Any = np.array(first.convert("L" if kind == "grey array" else "RGB"))
    expected = cropping.explain(np.array(image))
    if kind == "image":
        image = first.copy()
    elif kind == "frames":
        file = io.BytesIO()
        first.save(file, "PNG", save_all=True, append_images=[second])
        image = Image.open(file)
    result = cropping.explain(image)
    if kind == "image":
        image.paste(second)
    elif kind == "frames":
        image.seek(1)
    else:
        image[...] = 255 - image
    for canvas in ("model", "original"):
        found, wanted = (np.asarray(one.overlays(canvas=canvas)[0]) for one in (result, expected))
        assert np.array_equal(found, wanted), canvas


def test_preprocessed_pixels_are_their_own_original(explainer: Explainer) -> None:
    result = explainer.explain(tiny_model_files.pixels(2))
    for whole, model in zip(result.overlays(canvas="original"), result.overlays(), strict=True):
        assert np.abs(np.asarray(whole, int) - np.asarray(model, int)).max() <= 1


def test_changing_preprocessed_pixels_after_explain_does_not_change_their_overlays(explainer: Explainer) -> None:
    pixels = tiny_model_files.pixels(2)
    expected = [np.asarray(overlay) for overlay in explainer.explain(pixels.copy()).overlays()]
    result = explainer.explain(pixels)
    pixels[...] = 0
    assert all(np.array_equal(np.asarray(found), want) for found, want in zip(result.overlays(), expected, strict=True))
