"""Tests of the metric `randomization`, on networks for which its value is known."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import seewhy
from seewhy import Explainer
from seewhy.explainer.shuffled_stages import split_into_stages
from seewhy.metrics import randomization
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.randomization import RANDOMIZATION
from support.evaluated import evaluated, measure
from support.registered import unregister_all
from support.tiny_model import Tiny, set_property
from support.tiny_model_files import write

[METRIC] = RANDOMIZATION
SIZE = (40, 48)
GROUPS = [{"module": name, "tensors": [f"{name}.weight", f"{name}.bias"]} for name in ("fc", "conv2", "conv1")]


def explainer_of(path: Path, groups: object = GROUPS, tiny: Tiny | None = None, weights: object = None) -> Explainer:
    model = (tiny or Tiny(size=SIZE)).proto(weights)  # type: ignore[arg-type]
    return Explainer(write(path / "m.onnx", set_property(model, "parameters", groups)), threads=1)


@pytest.fixture
def listed(tmp_path: Path) -> Explainer:
    return explainer_of(tmp_path)


@pytest.fixture(autouse=True)
def methods_that_ignore_the_weights() -> Iterator[None]:
    def brightness(values: dict, context: object) -> np.ndarray:
        return values["images"].copy()

    seewhy.register_method(seewhy.Method("brightness", "Brightness", (), False, brightness))
    seewhy.register_method(
        seewhy.Method("constant", "Constant", (), False, lambda values, context: np.ones_like(values["images"]))
    )
    yield
    unregister_all()


def image(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, *size)).astype(np.float32)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_a_method_that_ignores_the_weights_gives_1(order: str, listed: Explainer) -> None:
    found = evaluated(listed, image(), ["brightness"])
    for name in ("brightness", "centre"):
        result = measure(METRIC, found[name], order=order)
        assert result.value == 1 and result.curve == [1, 1, 1]
        assert result.details == {"modules": [["fc"], ["conv2"], ["conv1"]], "undefined": []}
    assert abs(measure(METRIC, found["random"], order=order).value) < 0.05


def test_an_input_gradient_gives_nearly_0(tmp_path: Path) -> None:
    """Compare all weights at once; single stages of so small a network leave much of its gradient."""
    groups = [{"module": "", "tensors": [name for group in GROUPS for name in group["tensors"]]}]
    listed = explainer_of(tmp_path, groups)
    values = []
    for seed in range(6):
        found = evaluated(listed, image(seed), ["backprop"], seed=seed)["backprop"]
        values.append(measure(METRIC, found).value)
    assert abs(np.mean(values)) < 0.15
    assert np.abs(values).max() < 0.5


REDUCTIONS = {"sum": lambda values: values.sum(0), "max-abs": lambda values: np.abs(values).max(0)}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("order", "first"), [("cascading", 0), ("independent", 2)])
def test_the_curve_compares_each_stage_with_the_original(
    order: str, first: int, reduction: str, listed: Explainer
) -> None:
    """Compute the last stage with another explainer, and the correlation with SciPy."""
    pixels = image()
    explanation = evaluated(listed, pixels, ["backprop"], seed=7)["backprop"]
    result = measure(METRIC, explanation, order=order, reduction=reduction)
    tensors = [name for group in GROUPS[first:] for name in group["tensors"]]
    target = explanation.image.target
    before, after = (
        REDUCTIONS[reduction](each.explain(pixels[None], "backprop", target=target).attributions[0].astype(np.float64))
        for each in (listed, listed.with_shuffled_parameters(tensors, 7))
    )
    expected = scipy.stats.spearmanr(before.ravel(), after.ravel()).statistic
    assert result.curve is not None
    assert result.curve[-1] == pytest.approx(expected, abs=1e-4)
    assert result.value == pytest.approx(np.mean(result.curve))
    assert len(result.curve) == 3


def test_seeds_and_numbers_of_stages_give_other_curves(listed: Explainer) -> None:
    curves = set()
    for seed in (0, 1):
        explanation = evaluated(listed, image(), ["backprop"], seed=seed)["backprop"]
        for stages in (1, 2, 3):
            curve = measure(METRIC, explanation, stages=stages).curve
            assert curve is not None and len(curve) == stages
            assert measure(METRIC, explanation, stages=stages).curve == curve
            curves.add(tuple(curve))
    assert len(curves) == 6


def test_a_constant_map_has_no_value(listed: Explainer) -> None:
    with pytest.raises(NotMeasurable, match="the map is constant"):
        measure(METRIC, evaluated(listed, image(), ["constant"])["constant"])


# With this seed, the large bias moves away from the only kernel that is not zero, and no gradient is left.
MOVED = 1


def dying(folder: Path, *groups: dict) -> Explainer:
    """Return a network of one kernel that dies when the biases of its layer are shuffled."""
    weights = Tiny(size=SIZE).weights()
    weights["conv1.weight"] = np.zeros_like(weights["conv1.weight"])
    weights["conv1.weight"][0] = 1
    weights["conv1.bias"] = np.array([1000, -1000, -1000, -1000], np.float32)
    return explainer_of(folder, [*groups, {"module": "conv1", "tensors": ["conv1.bias"]}], weights=weights)


def test_a_stage_with_a_constant_map_counts_as_0_and_is_named(tmp_path: Path) -> None:
    found = evaluated(dying(tmp_path, GROUPS[0]), image(), ["backprop"], target=0, seed=MOVED)["backprop"]
    result = measure(METRIC, found, order="independent")
    assert result.curve is not None and result.curve[0] != 0 and result.curve[1] == 0
    assert result.details["undefined"] == [{"stage": 1, "reason": "the map is constant"}]
    assert result.value == pytest.approx(result.curve[0] / 2)


def test_a_map_that_is_constant_at_all_stages_has_no_value(tmp_path: Path) -> None:
    found = evaluated(dying(tmp_path), image(), ["backprop"], target=0, seed=MOVED)["backprop"]
    with pytest.raises(NotMeasurable, match="no stage has a map to compare; at the first one, the map is constant"):
        measure(METRIC, found)


def test_a_stage_that_overflows_counts_as_0_and_is_named(tmp_path: Path) -> None:
    tiny = Tiny(size=SIZE)
    weights = tiny.weights()
    # As they stand, the huge weights of the head belong to another class than the huge maps.
    weights["conv2.bias"] = np.array([1e30, 1, 1, 1, 1], np.float32)
    weights["fc.weight"] = np.ones_like(weights["fc.weight"])
    weights["fc.weight"][:, 1] = 1e30
    groups = [{"module": "conv1", "tensors": ["conv1.weight"]}, {"module": "fc", "tensors": ["fc.weight"]}]
    listed = explainer_of(tmp_path, groups, tiny, weights)
    found = evaluated(listed, image(), ["backprop"], target=0)["backprop"]
    result = measure(METRIC, found, order="independent")
    assert result.curve is not None and result.curve[1] == 0
    [undefined] = result.details["undefined"]
    assert undefined["stage"] == 1 and "NaN or infinity" in undefined["reason"]


def test_all_images_and_methods_share_the_stages(listed: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = Explainer.with_shuffled_parameters

    def counted(self: Explainer, *arguments: object) -> Explainer:
        made.append(arguments)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Explainer, "with_shuffled_parameters", counted)
    for seed in range(3):
        for explanation in evaluated(listed, image(seed), ["backprop", "gradcam"]).values():
            measure(METRIC, explanation)
    assert len(made) == len(split_into_stages(listed.metadata.parameters or ())) == 3


def test_stages_go_with_their_explainer(tmp_path: Path) -> None:
    gc.collect()
    before = len(randomization._stages)
    explainer = explainer_of(tmp_path)
    found = evaluated(explainer, image(), ["backprop"])
    measure(METRIC, found["backprop"])
    assert len(randomization._stages) == before + 1
    del explainer, found
    gc.collect()
    assert len(randomization._stages) == before


def test_methods_that_do_not_suit(listed: Explainer, tmp_path: Path) -> None:
    explanations = evaluated(listed, image(), ["backprop"], {"theirs": image()[0]})
    scope, options = Scope(listed.metadata), {}
    assert METRIC.unsuitable(explanations["backprop"].method, scope, options) is None
    assert METRIC.unsuitable(explanations["centre"].method, scope, options) is None
    assert "maps are files" in str(METRIC.unsuitable(explanations["theirs"].method, scope, options))
    older = Scope(replace(listed.metadata, parameters=None))
    reason = METRIC.unsuitable(explanations["backprop"].method, older, options)
    assert reason is not None and "does not list its parameters" in reason and "export the network again" in reason
