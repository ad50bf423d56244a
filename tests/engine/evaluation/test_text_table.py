"""Tests of the tables for terminals and notebooks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from seewhy.evaluation.html_table import format_html
from seewhy.evaluation.text_table import format_results, format_tables, text_width
from support.evaluation_records import around, case, typical_summary


def cells(text: str, title: str) -> list[list[str]]:
    """Return the cells of the rows with this title, one list for each table."""
    return [re.split(r" {2,}", line.strip())[1:] for line in text.splitlines() if line.strip().startswith(title)]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_lines_fit_the_terminal(width: int) -> None:
    lines = format_results(typical_summary(), width).splitlines()
    assert max(map(text_width, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [1, 20, 80, 300])
def test_every_width_shows_the_same_numbers(width: int) -> None:
    found = cells(format_results(typical_summary(), width), "Grad-CAM ")
    assert [one for row in found for one in row][:3] == ["0.149 ± 0.008 †", "0.579 ± 0.018 †", "0.630 ± 0.018"]


def test_means_and_half_widths_by_hand() -> None:
    summary = case({"deletion": {"layercam": [0.25] * 3, "gradcam": [1.0, 2.0, 6.0]}}).summary()
    text = format_tables(summary)
    assert cells(text, "LayerCAM") == [["0.25 ± 0.00"]]
    assert cells(text, "Grad-CAM") == [["3.00 ± 2.50"]]  # the interval ends at 1 and 6


def test_only_a_clear_winner_is_marked() -> None:
    clear = format_tables(case({"deletion": {"layercam": around(0.1), "gradcam": around(0.3)}}).summary())
    assert "*" in cells(clear, "LayerCAM")[0][0] and "*" not in cells(clear, "Grad-CAM")[0][0]
    assert "* clearly better than every other method" in clear
    same = format_tables(case({"deletion": {"layercam": around(0.1), "gradcam": around(0.1, seed=1)}}).summary())
    assert "*" not in same
    neither = format_tables(case({"odd": {"layercam": around(0.1), "gradcam": around(0.9)}}).summary())
    assert "*" not in neither and "is better" not in neither


def test_a_reference_can_neither_win_nor_keep_a_method_from_it() -> None:
    values = {"deletion": {"layercam": around(0.3), "gradcam": around(0.5), "centre": around(0.1)}}
    text = format_tables(case(values).summary())
    assert "*" in cells(text, "LayerCAM")[0][0] and "*" not in cells(text, "Centre")[0][0]


def test_references_come_last() -> None:
    values = {"deletion": {"random": around(0.5), "layercam": around(0.3), "centre": around(0.1)}}
    text = format_tables(case(values).summary())
    assert text.index("LayerCAM") < text.index("Random") < text.index("Centre")


def test_directions_are_words() -> None:
    summary = case({"deletion": {"layercam": [1.0]}, "insertion": {"layercam": [1.0]}}).summary()
    assert "lower is better  higher is better" in format_tables(summary)


def test_missing_values_and_metrics_are_named() -> None:
    text = format_results(typical_summary(), 120)
    assert "\n† some images have no value\n" in text
    assert "\nNo value of deletion and insertion for 1 of 40 images with Grad-CAM: the map is constant\n" in text
    assert (
        "\nNot measured: class-sensitivity, stability, randomization and cost for Random and Centre: it does not "
        "apply\n"
    ) in text
    assert text.startswith("40 images (2 more failed), 4 methods.")


def test_a_metric_that_is_left_out_for_all_methods() -> None:
    found = case({"deletion": {"layercam": [1.0]}, "insertion": {"layercam": [1.0]}})
    found.left_out.append({"metric": "insertion", "method": None, "reason": "the model has no probabilities"})
    text = format_results(found.summary())
    assert "\nNot measured: insertion: the model has no probabilities\n" in text


def test_nothing_measured() -> None:
    found = case({"deletion": {"layercam": ["constant"] * 3}})
    assert cells(format_results(found.summary()), "LayerCAM ")[0] == ["- †"]
    found.left_out.append({"metric": "deletion", "method": None, "reason": "no"})
    assert "Not measured: deletion: no" in format_results(found.summary())
    found.records = []
    assert format_results(found.summary()).startswith("0 images, 1 method.")


def test_one_image_has_no_interval() -> None:
    text = format_results(case({"deletion": {"layercam": [0.5]}}).summary())
    assert cells(text, "LayerCAM") == [["0.500"]]
    assert "Intervals need at least two independent images." in text and text.startswith("1 image, 1 method.")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.500"), (12.345, "12.3"), (1234.5, "1,234"), (0.0, "0.00"), (1.5e-7, "1.5e-07"), (2.5e9, "2.5e+09")],
)
def test_numbers_have_three_digits(value: float, expected: str) -> None:
    text = format_tables(case({"deletion": {"layercam": [value]}}).summary())
    assert cells(text, "LayerCAM") == [[expected]]


def test_costs_have_passes_and_bytes() -> None:
    (row,) = [one for one in cells(format_results(typical_summary(), 200), "Backprop ") if "37.0 ± 1.0" in one]
    assert row[-3:] == ["37.0 ± 1.0", "1", "196"]


def test_texts_are_escaped_and_wide_characters_are_aligned() -> None:
    titles = {"layercam": "注意地图", "gradcam": "\x1b[31mred\n", "backprop": "<b>&"}
    values = {"deletion": {name: around(0.3, seed=i) for i, name in enumerate(titles)}}
    summary = case(values, titles=titles).summary()
    text = format_results(summary, 80)
    assert "\x1b" not in text and "\\x1b[31mred\\n" in text
    rows = [line for line in text.splitlines() if "±" in line and not line[0].isdigit()]
    assert len(rows) == 3 and len({text_width(line[: line.index("0.")]) for line in rows}) == 1
    assert "<b>" not in format_html(summary).replace("<b>Recommendation</b>", "")


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_has_all_texts() -> None:
    summary = typical_summary()
    parser = Balanced()
    parser.feed(format_html(summary))
    assert not parser.open
    assert {"0.110 ± 0.007 *", "Faithfulness", "deletion", "LayerCAM", "Random"} <= set(parser.texts)
    assert set(summary["recommendation"]) <= set(parser.texts)
