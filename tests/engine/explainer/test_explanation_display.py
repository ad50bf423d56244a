"""Tests of the display of explanations in notebooks: HTML for Jupyter, and matplotlib figures."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, Explanation, ImageError, MissingExtraError
from seewhy.images.preprocessing import ArrayImage
from support.tiny_model_files import pixels

MakeImage = Callable[..., Image.Image]
HOSTILE = "a</pre><script>alert(1)</script>&\"'$x^2$\x1b\u202e"


class Page(HTMLParser):
    """Elements and text of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[Image.Image] = []
        self.shown: list[tuple[str | None, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            values = dict(attrs)
            prefix, data = str(values["src"]).split(",")
            assert prefix == "data:image/png;base64"
            self.images.append(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
            self.shown.append((values["width"], values["height"]))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def explanation(explainer: Explainer, make_image: MakeImage) -> Explanation:
    return explainer.explain([make_image(seed=seed) for seed in range(3)], "gradcam", top=2)


def many(explanation: Explanation, count: int, view: Any) -> Explanation:
    """Return an explanation of `count` images that all have the same map and view."""
    repeated = {
        name: np.repeat(getattr(explanation, name)[:1], count, axis=0) for name in ("logits", "targets", "maps")
    }
    return replace(explanation, images=(view,) * count, **repeated)


def test_html_shows_the_text_and_the_figures(explanation: Explanation) -> None:
    page = Page(explanation[:2]._repr_html_())
    assert page.tags[:2] == ["div", "pre"] and page.text.startswith(repr(explanation[:2]))
    figures = explanation[:2].figures(plain=True)
    assert len(page.images) == len(figures) == 4
    for image, figure, size in zip(page.images, figures, page.shown, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(figure))
        assert size == ("160", "120")  # 16 x 12 pixels, each ten times as large
    caption = explanation.caption(1, explanation.targets_of(1)[0])
    assert f"{caption.label} ({caption.score})" in page.text and page.text.count(caption.source) == 4
    assert page.text.count("scaled to its own range") == 4 and "figures()" not in page.text


def test_html_of_gradients(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image(), "backprop")
    (image,) = Page(result._repr_html_()).images
    assert np.array_equal(np.asarray(image), np.asarray(result.figures(plain=True)[0]))


def test_html_of_large_images_stays_small(explanation: Explanation) -> None:
    """Views of 400 x 300 pixels are reduced to 160 x 120."""
    large = replace(
        explanation[:1],
        maps=None,
        input_attributions=np.random.default_rng(0).standard_normal((1, 2, 3, 300, 400)).astype(np.float32),
    )
    text = large._repr_html_()
    assert [image.size for image in Page(text).images] == [(160, 120)] * 2
    assert len(text) < 2 * 4 / 3 * (3 * 160 * 120) * 1.1


def test_texts_are_escaped(explanation: Explanation) -> None:
    labels = tuple(HOSTILE for _ in explanation.class_labels or ())
    hostile = replace(explanation[:1], class_labels=labels, model_name=HOSTILE)
    text = hostile._repr_html_()
    page = Page(text)
    assert "script" not in page.tags and "\x1b" not in text and "\u202e" not in text
    assert "<script>alert(1)</script>" in page.text


def test_html_of_many_images_draws_only_five(explanation: Explanation) -> None:
    drawn = []

    class Counted:
        name, warning = "counted", None

        @property
        def view(self) -> np.ndarray:
            drawn.append(1)
            return explanation.images[0].view

    page = Page(many(explanation, 4000, Counted())._repr_html_())
    assert len(page.images) == 5 and "5 of 8,000 figures; figures() returns all." in page.text
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImageError("the file has changed"), "The figures cannot be drawn: the file has changed"),
        (OSError("no <font>\nat all"), "The figures cannot be drawn: OSError: no <font>"),
    ],
)
def test_html_says_why_there_are_no_figures(explanation: Explanation, error: Exception, words: str) -> None:
    class Broken:
        name, warning = "broken", None

        @property
        def view(self) -> np.ndarray:
            raise error

    some = replace(explanation[:2], images=(explanation.images[0], Broken()))  # type: ignore[arg-type]
    page = Page(some._repr_html_())
    assert len(page.images) == 2 and page.text.endswith(words) and page.text.startswith(repr(some))


def test_html_of_pixels_that_are_no_image(explanation: Explanation) -> None:
    unknown = replace(explanation[:1], images=(ArrayImage("image 0", pixels(1)[0], None),))
    page = Page(unknown._repr_html_())
    assert not page.images and "does not say how to turn preprocessed pixels" in page.text


@pytest.mark.parametrize("canvas", ["model", "original"])
def test_plot_shows_images_beside_figures(explanation: Explanation, canvas: str) -> None:
    figure = explanation.plot(canvas=canvas, colormap="viridis", blend="heat")
    every = figure.get_axes()
    assert len(every) == 3 * 3  # the image and two classes, for each of three images
    figures = explanation.figures(canvas=canvas, colormap="viridis", blend="heat", plain=True)
    for i, axes in enumerate(every):
        (shown,) = axes.get_images()
        image, column = divmod(i, 3)
        if column == 0:
            view = explanation.images[image]
            expected = view.view if canvas == "model" else view.original()
            assert axes.get_title() == "image " + str(image) and not axes.get_xlabel().strip()
        else:
            expected = np.asarray(figures[2 * image + column - 1])
            caption = explanation.caption(image, explanation.targets_of(image)[column - 1])
            assert axes.get_title() == f"{caption.label}\n{caption.score}"
            assert re.match(r"-?[\d.e-]+ to [\d.e-]+\nscaled to its own range", axes.get_xlabel())
        found = np.asarray(shown.get_array())
        assert found.shape == expected.shape
        if canvas == "model":
            assert np.array_equal(found, expected)
        else:  # the frame around the part that the model saw is two pixels wide
            assert np.mean((found == expected).all(axis=2)) > 0.6
    assert figure.get_suptitle() == "Grad-CAM · tiny"


def test_plots_are_written(explanation: Explanation) -> None:
    """Labels are no formulas, and no figure is left open in pyplot."""
    import matplotlib.pyplot as plt

    labels = tuple("$\\frac{1}$ & cat" for _ in explanation.class_labels or ())
    figure = replace(explanation[:1], class_labels=labels).plot()
    content = io.BytesIO()
    figure.savefig(content, dpi=50)
    assert Image.open(content).size == pytest.approx(figure.get_size_inches() * 50, abs=1)
    assert plt.get_fignums() == []
    with Image.open(io.BytesIO(figure._repr_png_())) as shown:  # type: ignore[attr-defined]  what Jupyter calls
        assert shown.format == "PNG" and shown.size == pytest.approx(figure.get_size_inches() * figure.dpi, abs=1)


def test_plot_of_gradients(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain(make_image(), "backprop")
    for style in ({}, {"gradients": "heatmap"}, {"gradients": "overlay", "alpha": 0.3}, {"scale": 2.0}):
        axes = result.plot(**style).get_axes()  # type: ignore[arg-type]
        (figure,) = result.figures(plain=True, **style)  # type: ignore[arg-type]
        assert len(axes) == 2
        assert np.array_equal(np.asarray(axes[1].get_images()[0].get_array()), np.asarray(figure))


def test_a_plot_has_a_limit(explanation: Explanation) -> None:
    view = explanation.images[0]
    assert len(many(explanation, 15, view).plot().get_axes()) == 15 * 3
    words = r"^a plot holds at most 30 figures, and there are 32: plot some images, such as explanation\[:8\].plot\(\)"
    with pytest.raises(ArgumentError, match=words):
        many(explanation, 16, view).plot()


def test_plot_refuses_bad_options(explanation: Explanation) -> None:
    with pytest.raises(ArgumentError, match="alpha must be between 0 and 1, not 2"):
        explanation.plot(alpha=2)
    unknown = replace(explanation[:1], images=(ArrayImage("image 0", pixels(1)[0], None),))
    with pytest.raises(ImageError, match="does not say how to turn preprocessed pixels"):
        unknown.plot()


def test_plot_without_matplotlib(explanation: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "seewhy.visualization.notebook_figure", raising=False)
    with pytest.raises(MissingExtraError, match=r'plots need matplotlib, .*; run: pip install "\.\[plot\]"'):
        explanation.plot()
