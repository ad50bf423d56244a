"""Tests of `seewhy.visualization.figure_style`: defaults, and values that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy import ArgumentError
from seewhy.visualization.figure_style import FigureStyle, read_scale


def test_alpha_depends_on_the_blend() -> None:
    assert FigureStyle().opacity == 0.5 and FigureStyle(blend="heat").opacity == 0.8
    assert FigureStyle(blend="heat", alpha=0.3).opacity == 0.3


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("blend", "heet", "Unknown blend 'heet'; choose one of constant, heat. Did you mean 'heat'?"),
        ("gradients", "RGB", "Unknown gradients 'RGB'; choose one of rgb, heatmap, overlay"),
        ("gradient_scaling", "min-max", "Did you mean 'minmax'?"),
        ("canvas", "wall", "Unknown canvas 'wall'"),
        ("alpha", 2, "alpha must be between 0 and 1, not 2"),
        ("scale", 0, "scale must be a number from 1e-30 to 1e[+]30, or first:N in a job .*, not 0"),
        ("scale", "first:3", "not 'first:3'"),
        ("scale", True, "not True"),
        ("plain", "yes", "plain must be True or False, not 'yes'"),
    ],
)
def test_refused_values(name: str, value: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words.replace("?", "[?]")):
        FigureStyle(**{name: value})


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("0.25", 0.25), (np.float32(2), 2.0), ("first:10", 10), (3, 3.0)]
)
def test_scales_of_jobs(given: Any, expected: float | int | None) -> None:
    found = read_scale(given)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("given", ["", "first:", "first:0", "first:-1", "last:3", "nan", "inf", "-1", 0, [1], 1e-40])
def test_scales_that_are_refused(given: Any) -> None:
    with pytest.raises(ArgumentError, match="scale must be a number from"):
        read_scale(given)
