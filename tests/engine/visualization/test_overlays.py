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

from seewhy import ArgumentError, Explainer, ImageError
from seewhy.contract.metadata import Preprocessing
from seewhy.images.preprocessing import load_image
from seewhy.images.resizing import Placement
from seewhy.visualization.colormaps import PALETTES, palette
from seewhy.visualization.contact_sheet import contact_sheet
from seewhy.visualization.overlays import clip_gradients, gradient_pictures, overlays
from support import tiny_model_files
from support.tiny_model import Tiny

Photo = Callable[..., Image.Image]
CROPPING = Preprocessing("shorter-side", 20, "bilinear")


@pytest.mark.parametrize("name", [name for name in PALETTES if name != "grey"])
def test_palettes_equal_matplotlib(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    assert np.array_equal(palette(name), matplotlib.colormaps[name](range(256), bytes=True)[:, :3])


@pytest.mark.parametrize("name", PALETTES)
def test_palettes_are_complete_and_safe_to_share(name: str) -> None:
    table = palette(name)
    assert table.shape == (256, 3) and table.dtype == np.uint8 and table.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1
    assert palette("grey")[[0, 128, 255], 1].tolist() == [0, 128, 255]


def test_unknown_palette() -> None:
    with pytest.raises(ArgumentError, match="no colour map 'rainbow'; there are jet, turbo, viridis, inferno"):
        palette("rainbow")


@pytest.mark.parametrize("colormap", ["jet", "grey"])
@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_overlay_by_hand(explainer: Explainer, photo: Photo, colormap: str, alpha: float) -> None:
    result = explainer.explain([photo(seed=1), photo(seed=2)], target=[[0, 1], [2, 3]])
    drawn = result.overlays(colormap, alpha)
    assert len(drawn) == 4
    for i in range(2):
        for k in range(2):
            colours = palette(colormap)[np.rint(255 * result.heatmaps[i, k].astype(np.float64)).astype(int)]
            exact = alpha * colours + (1 - alpha) * result.images[i].view
            # Rounded to nearest; a value of exactly one half may go either way.
            assert np.abs(np.asarray(drawn[2 * i + k]) - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_overlays_need_no_heatmaps(explainer: Explainer, photo: Photo, method: str) -> None:
    """They are drawn from the maps in one pass, to the same bytes; CAM's maps have no ReLU."""
    result = explainer.explain([photo(seed=1), photo(seed=2)], method, target=[[0, 1], [2, 3]])
    drawn = result.overlays("turbo", 0.4)
    assert not {"attributions", "heatmaps"} & set(vars(result))
    photos = [photo for photo in result.images for _ in range(2)]
    expected = overlays(photos, result.heatmaps.reshape(-1, *result.heatmaps.shape[2:]), "turbo", 0.4)
    for one, other in zip(drawn, expected, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert {"attributions", "heatmaps"} <= set(vars(result))


def test_gradient_picture_by_hand(explainer: Explainer, photo: Photo) -> None:
    result = explainer.explain([photo(), photo(seed=3)], method="backprop")
    for values, picture in zip(result.attributions.astype(np.float64), result.figures(), strict=True):
        scaled = np.rint((values - values.min()) / (values.max() - values.min()) * 255).transpose(1, 2, 0)
        assert np.abs(np.asarray(picture).astype(int) - scaled).max() <= 1
        assert np.asarray(picture).min() == 0 and np.asarray(picture).max() == 255


def test_pictures_are_overlays_for_maps(explainer: Explainer, photo: Photo) -> None:
    result = explainer.explain(photo(), method="cam")
    pairs = zip(result.figures("turbo", 0.4), result.overlays("turbo", 0.4), strict=True)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def test_clipped_gradients() -> None:
    """One extreme value no longer decides the scale, and signs and zeros stay what they are."""
    random = np.random.default_rng(0)
    gradients = random.standard_normal((2, 3, 20, 20)).astype(np.float32)
    gradients[0, 0, 0, 0], gradients[1] = 1000, 0
    found = clip_gradients(gradients, 0.9)
    limit = np.sort(np.abs(gradients[0]).ravel())[round(0.9 * 1199)]
    assert np.abs(found[0]).max() == pytest.approx(limit, rel=0.02)
    inside = np.abs(gradients[0]) < limit * 0.98
    assert inside.mean() > 0.85
    assert np.array_equal(found[0][inside], gradients[0][inside])
    assert np.array_equal(np.sign(found), np.sign(gradients))


def test_gradients_of_other_channels() -> None:
    with pytest.raises(ArgumentError, match="gradients of 4 channels cannot be drawn"):
        gradient_pictures(np.zeros((1, 4, 5, 5), np.float32))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_wrong_alpha(explainer: Explainer, photo: Photo, alpha: float) -> None:
    with pytest.raises(ArgumentError, match="alpha must be from 0 to 1"):
        explainer.explain(photo()).overlays(alpha=alpha)


def test_wrong_canvas(explainer: Explainer, photo: Photo) -> None:
    with pytest.raises(ArgumentError, match="no canvas 'wall'; there are model, original"):
        explainer.explain(photo()).overlays(canvas="wall")


# The whole photograph.


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """Shorter side to 20, then the middle 12x16."""
    return Explainer(Tiny(preprocessing=CROPPING).save(tmp_path_factory.mktemp("m") / "crop.onnx"))


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (20, 20), (16, 12), (7, 9), (640, 480), (2, 300)])
def test_only_what_the_model_saw_is_drawn_on(cropping: Explainer, photo: Photo, size: tuple[int, int]) -> None:
    image = photo(*size)
    result = cropping.explain(image)
    assert result.heatmaps.max() == 1
    before = np.asarray(image)
    found = np.asarray(result.overlays("grey", 1, "original")[0])
    assert found.shape == before.shape
    # The view's edges on the photograph, from the resize and crop rules rather than from the placement.
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
    # With alpha 1 and a grey palette, what is drawn is the heatmap itself: grey everywhere.
    assert (found[inside] == found[inside][:, :1]).all()


def test_heat_lands_where_the_model_saw_it(cropping: Explainer) -> None:
    """A view whose heat is one spot, drawn back onto a large photograph."""
    array = np.zeros((400, 600, 3), np.uint8)
    photo = load_image(array, cropping.metadata)
    heat = np.zeros((1, 12, 16), np.float32)
    heat[0, 3, 10] = 1
    found = np.asarray(overlays([photo], heat, "grey", 1.0, "original")[0])[..., 0].astype(float)
    rows, columns = np.arange(400) + 0.5, np.arange(600) + 0.5
    y, x = np.average(rows, weights=found.sum(axis=1)), np.average(columns, weights=found.sum(axis=0))
    # 600x400 becomes 30x20, of which the view starts at column 7 and row 4.
    assert (x, y) == pytest.approx(((7 + 10.5) * 20, (4 + 3.5) * 20), abs=1)


def test_squashed_view_covers_everything(explainer: Explainer, photo: Photo) -> None:
    image = photo(64, 48)  # four times the model's 16x12
    result = explainer.explain(image)
    found = np.asarray(result.overlays("grey", 1, "original")[0])[..., 0].astype(float)
    heat = Image.fromarray(result.heatmaps[0]).resize((64, 48), Image.Resampling.BILINEAR)
    assert np.abs(found - 255 * np.asarray(heat)).max() <= 1


def test_padded_view_stays_on_the_photograph(tmp_path: Path, photo: Photo) -> None:
    """A photograph smaller than the crop: the view has a black rim that is not there to draw on."""
    explainer = Explainer(Tiny(preprocessing=Preprocessing("none")).save(tmp_path / "pad.onnx"))
    image = photo(9, 5)
    result = explainer.explain(image)
    assert result.images[0].placement == Placement(-3, -3, 1, 1)
    found = np.asarray(result.overlays("grey", 1, "original")[0])[..., 0].astype(float)
    assert found.shape == (5, 9)
    assert np.abs(found - 255 * result.heatmaps[0][3:8, 3:12]).max() <= 1


def test_original_that_is_gone(cropping: Explainer, photo: Photo, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    photo().save(path)
    result = cropping.explain(path)
    path.unlink()
    assert result.overlays()
    with pytest.raises(ImageError, match=r"x\.png: cannot be read"):
        result.overlays(canvas="original")
    photo(50, 31).save(path)
    with pytest.raises(ImageError, match=r"x\.png: changed or replaced since it was explained"):
        result.overlays(canvas="original")


def test_original_that_was_replaced(cropping: Explainer, photo: Photo, tmp_path: Path) -> None:
    """By an image of the same size in pixels and in bytes, with the same time of modification."""
    path = tmp_path / "x.bmp"
    photo(seed=1).save(path)
    result = cropping.explain(path)
    whole = np.asarray(result.overlays(canvas="original")[0])
    times = path.stat()
    photo(seed=2).save(tmp_path / "other.bmp")
    path.write_bytes((tmp_path / "other.bmp").read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    with pytest.raises(ImageError, match=r"x\.bmp: changed or replaced since it was explained"):
        result.overlays(canvas="original")
    assert np.array_equal(np.asarray(cropping.explain(photo(seed=1)).overlays(canvas="original")[0]), whole)


@pytest.mark.parametrize("kind", ["array", "grey array", "image", "frames"])
def test_images_that_the_caller_uses_again_are_drawn_as_they_were(cropping: Explainer, photo: Photo, kind: str) -> None:
    """A program that reads a camera fills the same array again and again."""
    first, second = photo(seed=1), photo(seed=2)
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


def test_preprocessed_pixels_that_the_caller_uses_again_are_drawn_as_they_were(explainer: Explainer) -> None:
    pixels = tiny_model_files.pixels(2)
    expected = [np.asarray(overlay) for overlay in explainer.explain(pixels.copy()).overlays()]
    result = explainer.explain(pixels)
    pixels[...] = 0
    assert all(np.array_equal(np.asarray(found), want) for found, want in zip(result.overlays(), expected, strict=True))


# The contact sheet.


def tiles(size: tuple[int, int], count: int = 5) -> list[tuple[str, Image.Image]]:
    return [(f"Tile {i}", Image.new("RGB", size, (40 * i, 90, 160))) for i in range(count)]


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (224, 224), (16, 12), (512, 512), (2000, 1000), (7, 700)])
def test_sheet_is_readable_at_any_size(size: tuple[int, int]) -> None:
    sheet = contact_sheet(tiles(size), "tabby, tabby cat", "63.1 %", "resnet50 · cat.jpg")
    width = (sheet.width - 40 - 4 * 12) / 5
    longest = max(width, width * size[1] / size[0])
    assert 220 <= longest <= 520
    pixels = np.asarray(sheet)
    for i in range(5):
        middle = pixels[-20 - 1, round(20 + i * (width + 12) + width / 2)]
        assert np.abs(middle.astype(int) - (40 * i, 90, 160)).max() <= 1


def test_sheet_shows_heading_score_and_captions() -> None:
    def rows_with_ink(heading: str, score: str, note: str) -> int:
        sheet = np.asarray(contact_sheet([("", Image.new("RGB", (224, 224), "white"))] * 3, heading, score, note))
        return int((sheet < 200).any(axis=(1, 2)).sum())

    assert rows_with_ink("", "", "") == 0
    assert 10 < rows_with_ink("cat", "", "") < 40
    assert 10 < rows_with_ink("", "63.1 %", "") < 40
    assert 5 < rows_with_ink("", "", "cat.jpg") < 30


@pytest.mark.parametrize("heading", ["word " * 200, "x" * 3000, "", "\x1b[31mred\n\u202e", "中文 標籤"])
def test_sheet_with_odd_texts(heading: str) -> None:
    sheet = contact_sheet(tiles((224, 224), 2), heading, "1.0 %", heading)
    plain = contact_sheet(tiles((224, 224), 2), "cat", "1.0 %", "")
    assert sheet.width == plain.width and sheet.height <= plain.height + 50
    # Nothing is drawn in the margin.
    assert (np.asarray(sheet)[:, -15:] == 255).all()
