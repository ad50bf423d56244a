"""Tests of the search for layers that stay in float32: the choices that it measures, their order, and its end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from seewhy.quantization import float_layers
from seewhy.quantization.float_layers import search
from support.quantization import DRIFT

LAYERS = tuple("abcdefghij")


@dataclass
class Choices:
    """Candidates whose drift is known, and the choices that were measured."""

    first: list[int]
    drifts: dict[str, float]
    ranked: list[str] = field(default_factory=lambda: list("hagbcdefij"))
    measured: list[str] = field(default_factory=list)
    rankings: int = 0
    progressed: list[tuple[int, int]] = field(default_factory=list)
    backbone: Any = field(default_factory=lambda: SimpleNamespace(layers=[SimpleNamespace(name=x) for x in LAYERS]))
    float32: Any = None
    pixels: Any = None

    def first_layers(self) -> list[int]:
        return self.first

    def ranking(self) -> list[str]:
        self.rankings += 1
        return self.ranked

    def file(self, kept: list[str]) -> tuple[float, None, None]:
        self.measured.append("".join(kept))
        return self.drifts.get(self.measured[-1], 0.5), None, None

    def progress(self, phase: str, done: int, total: int) -> None:
        self.progressed.append((done, total))


@pytest.fixture(autouse=True)
def _known_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the drift of a choice from the table instead of measuring it."""
    monkeypatch.setattr(
        float_layers, "measure_drift", lambda a, value, *rest: replace(DRIFT, correlation_p5=1 - value, speed=())
    )


def found(choices: Choices, count: int | None = None) -> str:
    kept, trades = search(choices, count, 0.01)  # type: ignore[arg-type]
    assert [one.kept_float for one in trades] == [len(one) for one in choices.measured]
    return "".join(kept)


def test_the_first_choice_that_reaches_the_target_is_taken_without_a_ranking() -> None:
    choices = Choices([0, 3, 6], {"abc": 0.005, "abcdef": 0.001})
    assert found(choices) == "abc"
    assert (choices.measured, choices.rankings) == (["", "abc"], 0)
    assert choices.progressed == [(1, 6), (2, 6)], "six choices are possible: also abcdef, and it with 1, 2 or 3 others"


def test_the_costliest_other_layers_follow_the_first_ones() -> None:
    choices = Choices([3], {"abch": 0.02, "abchg": 0.009})
    assert found(choices) == "abchg"
    assert (choices.measured, choices.rankings) == (["abc", "abch", "abchg"], 1)


def test_the_smallest_drift_is_taken_if_none_reaches_the_target() -> None:
    choices = Choices([0, 8], {"": 0.4, "abcdefgh": 0.2, "abcdefghi": 0.3})
    assert found(choices) == "abcdefgh"
    assert choices.measured == ["", "abcdefgh", "abcdefghi"], "one layer is left in 8 bits"
    assert choices.progressed == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("count", "kept"), [(0, ""), (2, "ha")])
def test_a_given_number_of_layers_is_not_measured(count: int, kept: str) -> None:
    choices = Choices([3], {})
    assert found(choices, count) == kept
    assert not choices.measured
