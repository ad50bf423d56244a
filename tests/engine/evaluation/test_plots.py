"""Tests of the plots."""

from __future__ import annotations

import builtins
import io
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from seewhy import MissingExtraError
from seewhy.evaluation.plots import plot, plot_files
from support.evaluation_records import around, case, typical_summary

pytest.importorskip("matplotlib")


def written(summary: dict[str, Any], name: str) -> bytes:
    file = io.BytesIO()
    plot_files(summary)[name](file)
    return file.getvalue()


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def test_all_metrics_have_a_panel_with_their_means() -> None:
    summary = typical_summary()
    panels = {panel.get_title(loc="left").replace("\n", " "): panel for panel in plot(summary, "metrics").axes}
    assert panels.keys() == {one["title"] for one in summary["definitions"].values()}
    deletion = panels["Deletion"]
    labels = [one.get_text() for one in deletion.get_yticklabels()]
    assert labels == ["LayerCAM", "Grad-CAM", "Backprop", "Guided backprop", "Random", "Centre"]
    dots = {float(y): float(x) for line in deletion.lines for x, y in [line.get_xydata()[0]]}
    expected = [one["mean"] for one in summary["metrics"]["deletion"].values()]
    np.testing.assert_allclose([dots[y] for y in range(6)], expected)
    low, high = deletion.get_ylim()
    assert low > high, "the first method is at the top"
    ends = deletion.collections[0].get_segments()[0][:, 0]
    found = summary["metrics"]["deletion"]["layercam"]
    np.testing.assert_allclose(ends, [found["low"], found["high"]])


def test_only_a_clear_winner_has_a_ring() -> None:
    for second, rings in ((0.3, 1), (0.1, 0)):
        values = {"deletion": {"layercam": around(0.1), "gradcam": around(second, seed=1)}}
        figure = plot(case(values).summary(), "metrics")
        (panel,) = figure.axes
        assert sum(line.get_markerfacecolor() == "none" for line in panel.lines) == rings
        assert ("ring marks" in "".join(texts(figure))) == bool(rings)


def test_methods_keep_their_colours_and_references_are_grey() -> None:
    summary = typical_summary()
    colors: dict[float, set[str]] = {}
    for panel in plot(summary, "metrics").axes:
        for line in panel.lines:
            if line.get_markerfacecolor() != "none":
                colors.setdefault(line.get_ydata()[0], set()).add(line.get_color())
    assert all(len(one) == 1 for one in colors.values())
    shown = [next(iter(colors[y])) for y in range(6)]
    assert len(set(shown[:4])) == 4 and shown[4] == shown[5] == "#8C8C8C" and "#8C8C8C" not in shown[:4]


def test_curves_have_their_means_and_bands() -> None:
    summary = typical_summary()
    deletion, _, randomization = plot(summary, "curves").axes
    found = summary["curves"]["deletion"]["layercam"]
    np.testing.assert_allclose(deletion.lines[0].get_ydata(), found["mean"])
    np.testing.assert_allclose(deletion.lines[0].get_xdata(), np.linspace(0, 100, 21))
    band = deletion.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(min(found["low"])) and band[:, 1].max() == pytest.approx(
        max(found["high"])
    )
    np.testing.assert_array_equal(randomization.lines[0].get_xdata(), range(1, 9))


def test_curves_of_one_image_have_no_band() -> None:
    values = {"deletion": {"layercam": [0.5]}}
    summary = case(values, curves={"deletion": {"layercam": [[1.0, 0.5, 0.0]]}}).summary()
    (panel,) = plot(summary, "curves").axes
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [1.0, 0.5, 0.0])
    assert Image.open(io.BytesIO(written(summary, "curves.png"))).size[0] > 500


def test_files_are_images() -> None:
    summary = typical_summary()
    assert plot_files(summary).keys() == {"metrics.png", "metrics.svg", "curves.png", "curves.svg"}
    image = Image.open(io.BytesIO(written(summary, "metrics.png"))).convert("L")
    assert image.width == 1440 and image.getextrema() == (0, 255)
    assert ElementTree.fromstring(written(summary, "curves.svg")).tag.endswith("svg")


def test_equal_results_give_equal_files() -> None:
    summary = case({"deletion": {"layercam": [0.5, 0.6]}}).summary()
    for name in ("metrics.png", "metrics.svg"):
        assert written(summary, name) == written(summary, name)


def test_without_curves_there_is_one_plot() -> None:
    assert plot_files(case({"entropy": {"layercam": [1.0]}}).summary()).keys() == {"metrics.png", "metrics.svg"}


@pytest.mark.parametrize(
    "values",
    [
        {"deletion": {"layercam": [0.5]}},
        {"deletion": {"layercam": ["constant"], "gradcam": ["constant"]}},
        {"odd": {"random": [0.5, 0.5, 0.5]}},
    ],
)
def test_few_values_can_be_drawn(values: Any) -> None:
    assert Image.open(io.BytesIO(written(case(values).summary(), "metrics.png"))).width == 1440


def test_no_metric_can_be_drawn() -> None:
    found = case({"deletion": {"layercam": [0.5]}})
    found.left_out.append({"metric": "deletion", "method": None, "reason": "no"})
    assert written(found.summary(), "metrics.png").startswith(b"\x89PNG")


# Fonts that lack a character would only warn, which fails here as any warning does.
@pytest.mark.parametrize(
    "title", ["$x_1^2$", "$", "_hidden", "注意地图", "\u202eabc\x1b[31m\n", "\U000e0001\uffff", "a" * 500]
)
def test_any_title_can_be_drawn(title: str) -> None:
    values = {"deletion": {"layercam": [0.5, 0.6], "gradcam": [0.5, 0.7]}}
    curves = {"deletion": {name: [[1.0, 0.5], [1.0, 0.25]] for name in ("layercam", "gradcam")}}
    summary = case(values, curves=curves, titles={"layercam": title}).summary()
    summary["definitions"]["deletion"]["title"] = title
    assert written(summary, "metrics.svg") and written(summary, "curves.svg")
    legend = plot(summary, "curves").legends[0]
    assert len(legend.get_texts()) == 2
    if title.startswith(("$", "_")):
        assert legend.get_texts()[0].get_text().strip() == title


def test_notebooks_show_a_figure_without_pyplot() -> None:
    figure: Any = plot(typical_summary(), "metrics")
    assert Image.open(io.BytesIO(figure._repr_png_())).width == 1440
    assert figure.canvas.manager is None


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"matplotlib is not installed; run: .*\.\[plot\]"):
        plot(typical_summary(), "metrics")
