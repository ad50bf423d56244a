"""Tests of a user's own methods: `seewhy.register_method`, plugins and entry points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import ArgumentError, Explainer, Method, MethodError, NonFiniteError, OutputError, RuleContext, Settings
from seewhy.methods import registry
from seewhy.methods.options import Option, number
from support.command_line import failed, run
from support.registered import unregister_all
from support.tiny_model_files import pixels

MakeImage = Callable[..., Image.Image]

PLUGIN = '''
"""Sum of squared activations, scaled."""
import numpy as np
import seewhy
from seewhy.methods.options import Option, number

def rule(values, context):
    return (np.float32(context.options["scale"]) * (values["activations"] ** 2).sum(axis=1)).astype(np.float32)

seewhy.register_method(seewhy.Method(
    "energy", "Energy", ("activations",), True, rule, options=(Option("scale", 1.0, number(0, 10), "Factor."),)
))
'''


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    yield
    unregister_all()


def energy(values: Any, context: RuleContext) -> np.ndarray:
    return (values["activations"] ** 2).sum(axis=1).astype(np.float32)


def own(
    rule: Any = energy, name: str = "energy", outputs: Any = ("activations",), is_map: bool = True, **more: Any
) -> Method:
    return Method(name, "Energy", outputs, is_map, rule, **more)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_a_registered_method_works_like_a_built_in_one(explainer: Explainer) -> None:
    assert seewhy.register_method(own()).name == "energy"
    assert "energy" in seewhy.list_methods() and "energy" in explainer.methods
    result = explainer.explain(pixels(), ["gradcam", "energy"], top=2)["energy"]
    activations = explainer.explain(pixels(), "gradcam")  # its maps have the shape of the activations
    assert result.maps is not None and activations.maps is not None
    assert result.maps.shape == (3, 2, *activations.maps.shape[1:]) and (result.maps >= 0).all()
    assert np.array_equal(result.maps[:, 0], result.maps[:, 1])  # it does not depend on the class
    assert result.heatmaps.max() == 1 and len(result.overlays()) == 6


def test_a_registered_gradient_method(explainer: Explainer) -> None:
    seewhy.register_method(own(lambda v, c: v["images"] * v["input_gradients"], "mine", ("input_gradients",), False))
    results = explainer.explain(pixels(), ["mine", "inputxgradient"])
    assert np.array_equal(results["mine"].attributions, results["inputxgradient"].attributions)


def test_a_rule_gets_the_images_and_the_outputs_of_the_graph(explainer: Explainer) -> None:
    seen = []
    seewhy.register_method(own(lambda v, c: (seen.append(set(v)), energy(v, c))[1]))
    explainer.explain(pixels(), "energy", top=2)
    explainer.explain(pixels(), ["energy", "gradcam"], top=2)
    assert set(map(frozenset, seen)) == {
        frozenset({"images", "logits", "activations"}),
        frozenset({"images", "logits", "activations", "gradients"}),
    }


def test_a_method_that_is_replaced_between_calls(explainer: Explainer) -> None:
    seewhy.register_method(own())
    before = explainer.explain(pixels(), "energy").maps
    seewhy.register_method(own(lambda v, c: 2 * energy(v, c)), replace=True)
    assert np.array_equal(explainer.explain(pixels(), "energy").maps, 2 * before)


def test_a_rule_gets_the_logits_for_each_class(explainer: Explainer) -> None:
    """The head runs alone for further classes, and does not compute the logits again."""
    seen: list[np.ndarray] = []

    def rule(values: Any, context: RuleContext) -> np.ndarray:
        seen.append(values["logits"])
        return values["gradients"].sum(axis=1)

    seewhy.register_method(own(rule, outputs=("activations", "gradients")))
    result = explainer.explain(pixels(), "energy", top=2)
    assert np.array_equal(np.concatenate(seen), np.tile(result.logits, (2, 1)))


def test_a_rule_that_changes_its_options(explainer: Explainer) -> None:
    option = Option("power", 2.0, number(0, 5), "Exponent of the activations.")
    seewhy.register_method(own(lambda v, c: np.float32(c.options.pop("power")) * energy(v, c), options=(option,)))
    first, second = explainer.explain(pixels(), "energy"), explainer.explain(pixels(), "energy")
    assert np.array_equal(first.maps, second.maps) and first.options == {"power": 2}


def test_an_option_that_is_an_array(explainer: Explainer) -> None:
    option = Option("factors", [1, 1], lambda value: np.array(value, np.float32), "Factors.")
    seewhy.register_method(own(lambda v, c: c.options["factors"].sum() * energy(v, c), options=(option,)))
    one = explainer.explain(pixels(), "energy").maps
    three = explainer.explain(pixels(), "energy", options={"energy": {"factors": [1, 5]}}).maps
    np.testing.assert_allclose(three, 3 * one, rtol=1e-6)


def test_options_that_are_changed_do_not_reach_other_calls(explainer: Explainer) -> None:
    dict.update(explainer.explain(pixels(), "gradcam").options, samples=3)
    assert explainer.explain(pixels(), "gradcam").options == {}


def test_options_reach_the_rule(explainer: Explainer) -> None:
    option = Option("power", 2.0, number(0, 5), "Exponent of the activations.")
    rule = lambda v, c: (np.abs(v["activations"]) ** c.options["power"]).sum(axis=1).astype(np.float32)  # noqa: E731
    seewhy.register_method(own(rule, options=(option,)))
    one = explainer.explain(pixels(), "energy", options={"energy": {"power": 1}})
    assert one.options == {"power": 1.0} and explainer.explain(pixels(), "energy").options == {"power": 2.0}
    with pytest.raises(MethodError, match="energy: power must be a number from 0 to 5, not 9"):
        explainer.explain(pixels(), "energy", options={"energy": {"power": 9}})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda v, c: v["gradient"], "the rule of method energy failed with KeyError: 'gradient'"),
        (lambda v, c: 3, r"must return a float32 array \(N,h,w\) with N = 1, not int"),
        (lambda v, c: v["activations"].sum(axis=1).astype(float), "must return a float32 array .* not one of float64"),
        (lambda v, c: v["activations"], r"must return a float32 array \(N,h,w\) with N = 1, not \(1, 5"),
        (lambda v, c: v["activations"][:0].sum(axis=1), r"with N = 1, not \(0, "),
        (lambda v, c: v["activations"].__imul__(2), "failed with ValueError: output array is read-only"),
    ],
)
def test_a_wrong_rule_gives_one_line(rule: Any, words: str, explainer: Explainer) -> None:
    seewhy.register_method(own(rule))
    with pytest.raises(MethodError, match=words) as raised:
        explainer.explain(pixels(), ["gradcam", "energy"])
    assert "\n" not in str(raised.value) and "energy" in str(raised.value)


def test_a_rule_that_returns_nan(explainer: Explainer) -> None:
    seewhy.register_method(own(lambda v, c: energy(v, c) / np.float32(np.nan)))
    with pytest.raises(NonFiniteError, match="energy: the result holds NaN or infinity"):
        explainer.explain(pixels(), "energy")


def test_attributions_of_the_wrong_shape(explainer: Explainer) -> None:
    seewhy.register_method(own(is_map=False))
    with pytest.raises(MethodError, match=r"must return a float32 array \(1, 3, 12, 16\), not \(1, "):
        explainer.explain(pixels(), "energy")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (own(outputs=("activation",)), "must be a tuple of names among activations, .*'activation'"),
        (own(outputs=["activations"]), "must be a tuple of names"),
        (own(outputs=(np.zeros(3),)), "must be a tuple of names"),
        (own(rule=None), "the rule of method energy must be a function of values and context, not None"),
        (own(name="sheet"), "is not 'sheet' or 'random' or 'centre'; it is 'sheet'"),
        (own(name="centre"), "it is 'centre'"),
        (own(reduction="mean"), "Unknown reduction of method energy 'mean'; choose one of sum, max-abs"),
    ],
)
def test_wrong_methods_are_not_registered(method: Any, words: str) -> None:
    before = dict(registry.METHODS)
    with pytest.raises(ArgumentError, match=words) as raised:
        seewhy.register_method(method)
    assert "\n" not in str(raised.value) and before == registry.METHODS


def test_a_replaced_method_is_used(explainer: Explainer) -> None:
    seewhy.register_method(own())
    seewhy.register_method(own(lambda v, c: np.ones_like(energy(v, c))), replace=True)
    maps = explainer.explain(pixels(), "energy").maps
    assert maps is not None and (maps == 1).all()


def test_a_plugin_in_a_folder_job(plugin: Path, make_image: MakeImage, explainer: Explainer, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        make_image(seed=i).save(tmp_path / "in" / f"{i}.png")
    settings = Settings(["energy", "gradcam"], plugins=plugin, raw=True)
    assert seewhy.explain_folder(explainer, tmp_path / "in", tmp_path / "out", settings).done == 3
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert facts["plugins"] == {"energy": {"plugin": "mine.py", "sha256": sha256}}
    with np.load(tmp_path / "out" / "1.energy.npz") as arrays:
        alone = explainer.explain(make_image(seed=1), "energy")
        assert alone.maps is not None and np.array_equal(arrays["maps"], alone.maps[0])
    assert run("verify", tmp_path / "out").exit_code == 0
    assert seewhy.explain_folder(explainer, tmp_path / "in", tmp_path / "out", settings).already_recorded == 3
    plugin.write_text(PLUGIN + "# changed\n")
    with pytest.raises(OutputError, match=r"plugins\.energy\.sha256 was .* and is .* now"):
        seewhy.explain_folder(explainer, tmp_path / "in", tmp_path / "out", settings)


def test_a_plugin_on_the_command_line(plugin: Path, make_image: MakeImage, model_path: Path, tmp_path: Path) -> None:
    make_image().save(tmp_path / "a.png")
    arguments = ["explain", model_path, tmp_path / "a.png", "-o", tmp_path / "out", "--method", "energy"]
    failed(run(*arguments), "Unknown method 'energy'")
    result = run(*arguments, "--plugin", plugin, "--option", "energy.scale=2")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "a.energy.png").exists()


def test_a_wrong_plugin_on_the_command_line(plugin: Path, model_path: Path, tmp_path: Path) -> None:
    plugin.write_text("1 / 0")
    arguments = ["explain", model_path, tmp_path, "-o", tmp_path / "out", "--plugin", plugin]
    failed(run(*arguments), "plugin mine.py, line 1: ZeroDivisionError: division by zero")
    assert not (tmp_path / "out").exists()
