"""Tests that bad arguments of the public interface end in a `SeewhyError` of one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import Explainer, Method, Metric, SeewhyError, Settings
from seewhy.methods.options import Option, number
from seewhy.metrics.registry import resolve_metrics
from support.registered import unregister_all
from support.tiny_model_files import pixels

MakeImage = Callable[..., Image.Image]


class Odd:
    """An object whose text has two lines."""

    def __repr__(self) -> str:
        return "odd\nobject"


JUNK: list[Any] = [
    *(None, True, 0, -1, 3, 10**30, 1.5, math.nan, math.inf, Decimal(1), 1j),
    *("", "x", "\0", "\udcff", b"", b"x", Path("none"), object(), Odd(), len, Odd),
    *([], (), {}, set(), [None], [[]], ["x", 3], {"x": 3}, {3: {}}, [("cpu", 3)], {"gradcam": 3}, range(2), iter([1])),
    *(
        np.zeros(3),
        np.float32(0.5),
        np.array("x"),
        np.ma.masked_array([1.0], [True]),
        np.zeros((1, 3, 12, 16), complex),
    ),
]


def check(call: Callable[[Any], object]) -> None:
    """Call with every value. A value may work, or be refused by an error of SeeWhy on one line."""
    wrong = []
    for value in JUNK:
        try:
            call(value)
        except SeewhyError as error:
            found = "" if str(error) and "\n" not in str(error) else f"not one line: {error}"
        except Exception as error:  # noqa: BLE001  reported below, with the value
            found = f"{type(error).__name__}: {error}"
        else:
            found = ""
        if found:
            wrong.append(f"{type(value).__name__} {ascii(value)[:40]!r}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["images", "method", "target", "top", "batch_size", "options", "progress"])
def test_explain(name: str, explainer: Explainer) -> None:
    check(lambda value: explainer.explain(**{"images": pixels(1), name: value}))


@pytest.mark.parametrize("name", ["path", "providers", "threads", "verify"])
def test_explainer(name: str, model_path: Path) -> None:
    check(lambda value: Explainer(**{"path": model_path, name: value}))


@pytest.mark.parametrize("name", ["images", "batch_size"])
def test_predict(name: str, explainer: Explainer) -> None:
    check(lambda value: explainer.predict(**{"images": pixels(1), name: value}))
    check(lambda value: explainer.predict(pixels(1)).top(value))
    check(explainer.preprocess)


@pytest.mark.parametrize("name", ["method", "classes", "batch_size"])
def test_warm_up(name: str, explainer: Explainer) -> None:
    check(lambda value: explainer.warm_up(**{name: value}))
    check(explainer.with_threads)


@pytest.mark.parametrize("method", ["gradcam", "backprop"])
@pytest.mark.parametrize("name", ["colormap", "alpha", "canvas", "blend", "scale"])
def test_figures(name: str, method: str, explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    result = explainer.explain(make_image(), method)
    check(lambda value: result.overlays(**{name: value}))
    check(lambda value: result.figures(**{name: value}))
    check(lambda value: result.save(tmp_path, **{name: value}))
    check(lambda value: result.plot(**{name: value}))
    check(lambda value: result[value])


@pytest.mark.parametrize("name", ["gradients", "gradient_scaling", "plain"])
def test_captioned_figures(name: str, explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    result = explainer.explain(make_image(), "backprop")
    check(lambda value: result.figures(**{name: value}))
    check(lambda value: result.save(tmp_path, **{name: value}))


def test_save(explainer: Explainer, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = explainer.explain(make_image())
    check(result.save)
    check(lambda value: result.save(tmp_path, raw=value))


def test_lazily_computed_attributes(explainer: Explainer) -> None:
    """Pixels of a model that records no preprocessing cannot be drawn, and everything else works."""
    result = explainer.explain(pixels(1))
    assert result.heatmaps.shape == (1, 12, 16) and result.probabilities is not None and result.labels


@pytest.mark.parametrize("name", Settings.__dataclass_fields__)
def test_settings(
    name: str, explainer: Explainer, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_image().save(tmp_path / "a.png")
    numbers = iter(range(10**6))

    def call(value: Any) -> object:
        settings = Settings(**{name: value})
        return seewhy.explain_folder(explainer, tmp_path / "a.png", tmp_path / f"out{next(numbers)}", settings)

    check(call)


@pytest.mark.parametrize(
    "name",
    [
        "explainer",
        "images",
        "folder",
        "settings",
        "lists",
        "max_failure_rate",
        "fail_fast",
        "restart",
        "changed",
        "retry_failed",
        "stop",
        "progress",
    ],
)
def test_explain_folder(
    name: str, explainer: Explainer, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_image().save(tmp_path / "a.png")
    numbers = iter(range(10**6))

    def call(value: Any) -> object:
        if name == "progress" and callable(value):
            return None  # what a user's function raises passes through
        given = {"explainer": explainer, "images": tmp_path / "a.png", "folder": tmp_path / f"out{next(numbers)}"}
        return seewhy.explain_folder(**{**given, name: value})

    check(call)


@pytest.mark.parametrize("name", ["model", "output", "methods", "outputs"])
def test_cut(name: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": model_path, "output": tmp_path / "small.onnx", "methods": "gradcam"}
    check(lambda value: seewhy.cut(**{**given, name: value}))


@pytest.mark.parametrize(
    "name",
    ["name", "title", "outputs", "is_map", "rule", "reference", "multi_pass", "rectified", "options", "reduction"],
)
def test_register_method(name: str, explainer: Explainer) -> None:
    given = {
        "name": "mine",
        "title": "Mine",
        "outputs": ("activations",),
        "is_map": True,
        "rule": lambda values, context: values["activations"].sum(axis=1),
        "options": (Option("a", 1.0, number(0, 1), "A number."),),
    }

    def call(value: Any) -> object:
        try:
            method = seewhy.register_method(Method(**{**given, name: value}))
            return explainer.explain(pixels(1), method.name)
        finally:
            unregister_all()

    check(call)
    check(seewhy.register_method)
    check(seewhy.load_plugin)


@pytest.mark.parametrize(
    "name",
    [
        *("name", "title", "group", "direction", "measure", "bounds", "reference", "cost", "options", "is_default"),
        "unsuitable",
    ],
)
def test_register_metric(name: str) -> None:
    given = {
        "name": "mine",
        "title": "Mine",
        "group": "other",
        "direction": "higher",
        "measure": lambda explanation, options: 0.0,
        "options": (Option("a", 1.0, number(0, 1), "A number."),),
    }

    def call(value: Any) -> object:
        try:
            metric = seewhy.register_metric(Metric(**{**given, name: value}))
            return resolve_metrics(metric.name)
        finally:
            unregister_all()

    check(call)
    check(seewhy.register_metric)
    check(resolve_metrics)
    check(lambda value: resolve_metrics("sparseness", value))
    check(lambda value: resolve_metrics("top-energy", {"top-energy": {"share": value}}))
