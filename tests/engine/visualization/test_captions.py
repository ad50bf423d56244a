"""Tests of captions, contact sheets and their SVG documents: sizes, texts and order."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer
from seewhy.contract.metadata import Preprocessing
from seewhy.visualization.captions import Caption, captioned
from seewhy.visualization.color_scale import ColorScale, number_text
from seewhy.visualization.colormaps import palette
from seewhy.visualization.contact_sheet import Section, Tile, columns, contact_sheet
from seewhy.visualization.drawings import Drawing
from seewhy.visualization.figure_style import FigureStyle
from seewhy.visualization.page import Page, Picture, Text
from seewhy.visualization.svg import svg_document
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]
SCALE = ColorScale(-0.5, 1.25, "inferno", "scaled to its own range")
CAPTION = Caption("tabby", "63.1 %", "Grad-CAM · resnet50")
HOSTILE = "a</text><script>alert(1)</script>&amp;\x00\x1b]]>\u202e\ufffe\"'"


def texts(page: Page) -> list[str]:
    return [item.text for item in page.items if isinstance(item, Text)]


def drawing(size: tuple[int, int], scale: ColorScale = SCALE) -> Drawing:
    return Drawing(np.full((size[1], size[0], 3), (40, 90, 160), np.uint8), scale)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.123456, "0.123"), (-0.00001234, "-1.23e-05"), (12345.6, "1.23e+04"), (1, "1")]
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize("size", [(224, 224), (16, 12), (512, 300), (7, 700), (4000, 1000), (3000, 8), (1, 1)])
def test_caption_at_any_size(size: tuple[int, int]) -> None:
    """The image has its own size, or a multiple of it, and all texts are on the page."""
    page = captioned(drawing(size), CAPTION)
    assert texts(page) == ["tabby", "63.1 %", "Grad-CAM · resnet50", "-0.5", "1.25", "scaled to its own range"]
    image = np.asarray(page.image())
    picture = next(item for item in page.items if isinstance(item, Picture))
    assert picture.width % size[0] == 0 and picture.width // size[0] == picture.height // size[1]
    assert max(picture.width, picture.height) >= 224 and image.shape == (page.height, page.width, 3)
    shown = image[picture.y : picture.y + picture.height, picture.x : picture.x + picture.width]
    assert (shown == (40, 90, 160)).all()
    strip = image[picture.height :]
    assert (strip[:, :4] == 255).all() and (strip[:, -4:] == 255).all() and (strip[-4:] == 255).all()
    assert (strip < 100).any()


def test_figures_carry_captions(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image(), target="espresso")
    [figure], [plain] = result.figures(), result.figures(plain=True)
    assert plain.size == (16, 12) and figure.width == 224 and figure.height > 168 + 50
    enlarged = np.asarray(plain).repeat(14, axis=0).repeat(14, axis=1)
    assert np.array_equal(np.asarray(figure)[:168], enlarged)
    assert result.caption(0, 1) == Caption("espresso", result.score_text(0, 1), "Grad-CAM · tiny")


def test_bar_runs_from_the_lowest_to_the_highest_colour() -> None:
    page = captioned(drawing((224, 224)), CAPTION)
    bar = [item.pixels for item in page.items if isinstance(item, Picture)][1]
    colors = palette("inferno")
    assert (bar == bar[:1]).all()
    assert np.array_equal(bar[0, [0, -1]], colors[[0, -1]])
    assert np.abs(bar[0].astype(int) - colors[np.linspace(0, 255, bar.shape[1]).astype(int)]).max() <= 12


def test_constant_map_has_no_bar() -> None:
    page = captioned(drawing((224, 224), ColorScale(0, 0, "inferno", "scaled to its own range", None, 0)), CAPTION)
    assert "0 everywhere" in texts(page) and sum(isinstance(item, Picture) for item in page.items) == 1


def test_frame_shows_what_the_model_saw(tmp_path: Path, make_image: MakeImage) -> None:
    """On the whole image, a white line lies on the outermost pixels of the crop, and the caption says so."""
    model = Tiny(preprocessing=Preprocessing("shorter-side", 12, "bilinear"))
    result = Explainer(model.save(tmp_path / "m.onnx")).explain(make_image(600, 300))
    [figure], [plain] = result.figures(canvas="original"), result.figures(canvas="original", plain=True)
    found, bare = np.asarray(figure)[:300], np.asarray(plain)
    # 600x300 is resized to 24x12, and the crop starts at column 4, which is pixel 100.
    assert (found[0, 100:500] == 255).all() and (found[:, 100] == 255).all() and (found[:, 499] == 255).all()
    assert np.array_equal(found[:, :100], bare[:, :100]) and np.array_equal(found[5:-5, 105:495], bare[5:-5, 105:495])
    (framed,) = (captioned(one, CAPTION) for one in result.draw(FigureStyle(canvas="original")))
    assert any("frame: the part that the model saw" in text for text in texts(framed))


def test_gradients_on_the_original_canvas_say_what_they_show(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image(), "backprop")
    for style in (FigureStyle(canvas="original"), FigureStyle(canvas="original", gradients="heatmap")):
        (page,) = (captioned(one, CAPTION) for one in result.draw(style))
        assert "shows the part that the model saw" in " ".join(texts(page))
    (page,) = (captioned(one, CAPTION) for one in result.draw(FigureStyle()))
    assert "shows" not in " ".join(texts(page))


# The contact sheet.


def section(size: tuple[int, int], count: int) -> Section:
    images = (np.full((size[1], size[0], 3), (10 * i, 90, 160), np.uint8) for i in range(count))
    return Section([Tile(f"Tile {i}", Drawing(one, SCALE), has_scale=i > 0) for i, one in enumerate(images)])


@pytest.mark.parametrize("tiles", range(1, 40))
def test_columns(tiles: int) -> None:
    """Up to six tiles are in one row; more leave as few empty places as 4 to 6 columns can."""
    count = columns(tiles)
    assert count == tiles if tiles <= 6 else 4 <= count <= 6
    if tiles > 6:
        assert -tiles % count == min(-tiles % other for other in (4, 5, 6))


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (224, 224), (16, 12), (512, 512), (2000, 1000), (7, 700)])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_sheet_is_readable_at_any_size(size: tuple[int, int], count: int) -> None:
    """All tiles have the same size, in order, row by row."""
    page = contact_sheet([section(size, count)], "tabby, tabby cat", "63.1 %", "resnet50 · cat.jpg")
    pictures = [item for item in page.items if isinstance(item, Picture) and item.height > 20]
    assert len(pictures) == count and len({(item.width, item.height) for item in pictures}) == 1
    assert 224 <= max(pictures[0].width, pictures[0].height) <= 512
    assert [(item.y, item.x) for item in pictures] == sorted((item.y, item.x) for item in pictures)
    pixels = np.asarray(page.image())
    for i, item in enumerate(pictures):
        middle = pixels[item.y + item.height // 2, item.x + item.width // 2]
        assert np.abs(middle.astype(int) - (10 * i, 90, 160)).max() <= 1
        assert item.x + item.width <= page.width - 20 and item.y + item.height <= page.height - 20


def test_fifteen_methods_fit_a_page() -> None:
    """A sheet is at most twice as wide as high, where one row would be ten times as wide."""
    page = contact_sheet([section((224, 224), 16)], "tabby", "63.1 %", "")
    assert 0.5 < page.width / page.height < 2
    row = contact_sheet([section((224, 224), 16)], "tabby", "63.1 %", "", one_row=True)
    assert row.width > 5 * row.height


@pytest.mark.parametrize("heading", ["word " * 200, "x" * 3000, "", HOSTILE, "中文 標籤 кот"])
def test_sheet_with_odd_texts(heading: str) -> None:
    page = contact_sheet([section((224, 224), 2)], heading, "1.0 %", heading, notes=heading)
    plain = contact_sheet([section((224, 224), 2)], "cat", "1.0 %", "", notes="x")
    assert page.width == plain.width and page.height <= plain.height + 120
    assert (np.asarray(page.image())[:, -15:] == 255).all()  # the margin
    ElementTree.fromstring(svg_document(page))


# SVG.


def test_svg_holds_texts_and_images() -> None:
    page = captioned(drawing((30, 20)), CAPTION)
    root = ElementTree.fromstring(svg_document(page))
    assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")] == texts(page)
    first = next(root.iter("{http://www.w3.org/2000/svg}image"))
    data = first.attrib["{http://www.w3.org/1999/xlink}href"]
    with Image.open(io.BytesIO(base64.b64decode(data.removeprefix("data:image/png;base64,")))) as image:
        assert image.size == (30, 20) and image.getpixel((3, 3)) == (40, 90, 160)
    assert (root.attrib["width"], root.attrib["height"]) == (str(page.width), str(page.height))


def test_svg_refers_to_nothing_outside_and_has_no_scripts(tmp_path: Path, make_image: MakeImage) -> None:
    explainer = Explainer(Tiny(labels=(HOSTILE,) * 6).save(tmp_path / "m.onnx"))
    result = explainer.explain(make_image())
    (page,) = (captioned(one, result.caption(0, 0)) for one in result.draw(FigureStyle()))
    document = svg_document(page)
    root = ElementTree.fromstring(document)
    kinds = {re.sub(r"\{.*\}", "", element.tag) for element in root.iter()}
    assert kinds == {"svg", "rect", "text", "image"}
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert links and all(link.startswith("data:image/png;base64,") for link in links)
    assert "<!DOCTYPE" not in document and "<!ENTITY" not in document
