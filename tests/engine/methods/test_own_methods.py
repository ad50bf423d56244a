"""Tests of a user's own methods: `seewhy.register_method`, plugins and entry points."""

from __future__ import annotations

import hashlib
import importlib.metadata
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
from seewhy.methods.plugins import read_plugin
from support.command_line import failed, run
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
    registry.unregister_methods(list(registry.origins))


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
        (lambda v, c: 3, r"must return a float32 array \(N,h,w\) with N = 3, not int"),
        (lambda v, c: v["activations"].sum(axis=1).astype(float), "must return a float32 array .* not one of float64"),
        (lambda v, c: v["activations"], r"must return a float32 array \(N,h,w\) with N = 3, not \(3, 5"),
        (lambda v, c: v["activations"][:2].sum(axis=1), r"with N = 3, not \(2, "),
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
    with pytest.raises(MethodError, match=r"must return a float32 array \(3, 3, 12, 16\), not \(3, "):
        explainer.explain(pixels(), "energy")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (energy, "takes a seewhy.Method, not <function energy"),
        (own(name="Grad CAM"), "at most 40 lower-case letters, digits, \\+ and -, .* it is 'Grad CAM'"),
        (own(name="sheet"), "is not 'sheet'"),
        (own(name="gradcam"), "a method named gradcam exists already; choose another name$"),
        (own(outputs=("activation",)), "must be a tuple of names among activations, .*'activation'"),
        (own(outputs=["activations"]), "must be a tuple of names"),
        (own(outputs=(np.zeros(3),)), "must be a tuple of names"),
        (own(rule=None), "the rule of method energy must be a function of values and context, not None"),
        (own(options=["scale"]), "the options of method energy must be a tuple of seewhy.Option"),
    ],
)
def test_wrong_methods_are_not_registered(method: Any, words: str) -> None:
    before = dict(registry.METHODS)
    with pytest.raises(ArgumentError, match=words) as raised:
        seewhy.register_method(method)
    assert "\n" not in str(raised.value) and before == registry.METHODS


def test_a_name_is_replaced_only_on_request(explainer: Explainer) -> None:
    seewhy.register_method(own())
    with pytest.raises(ArgumentError, match="exists already; choose another name, or register with replace=True"):
        seewhy.register_method(own())
    seewhy.register_method(own(lambda v, c: np.ones_like(energy(v, c))), replace=True)
    maps = explainer.explain(pixels(), "energy").maps
    assert maps is not None and (maps == 1).all()
    with pytest.raises(ArgumentError, match="gradcam exists already"):
        seewhy.register_method(own(name="gradcam"), replace=True)


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import seewhy\n", "plugin mine.py registers no method; it must call seewhy.register_method"),
        ("def (:\n", "plugin mine.py, line 1: SyntaxError: invalid syntax"),
        ("x = 1\n1 / 0\n", "plugin mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import nothing_such\n", "plugin mine.py, line 1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("raise SystemExit(0)\n", "plugin mine.py, line 1: SystemExit"),
        (PLUGIN.replace('"energy"', '"gradcam"'), "plugin mine.py, line .*: a method named gradcam exists already"),
        (PLUGIN + "\nboom\n", "plugin mine.py, line .*: NameError: name 'boom' is not defined"),
        ("\0", "plugin mine.py"),
    ],
)
def test_a_wrong_plugin_gives_one_line(text: str, words: str, plugin: Path, model_path: Path, tmp_path: Path) -> None:
    plugin.write_text(text)
    before = dict(registry.METHODS)
    with pytest.raises(MethodError, match=words) as raised:
        seewhy.load_plugin(plugin)
    assert "\n" not in str(raised.value) and before == registry.METHODS
    failed(run("explain", model_path, tmp_path, "-o", tmp_path / "out", "--plugin", plugin), "plugin mine.py")
    assert not (tmp_path / "out").exists()


def test_plugins_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the plugin cannot be read: No such file"):
        seewhy.load_plugin(tmp_path / "none.py")
    with pytest.raises(OutputError, match="the plugin cannot be read"):
        seewhy.load_plugin(tmp_path)
    for wrong in (3, "\0", None):
        with pytest.raises(ArgumentError, match="a plugin must be a path"):
            read_plugin(wrong)  # type: ignore[arg-type]


def test_the_same_plugin_runs_once(plugin: Path) -> None:
    seewhy.load_plugin(plugin)
    first = registry.METHODS["energy"]
    seewhy.load_plugin(plugin)
    assert registry.METHODS["energy"] is first
    plugin.write_text(PLUGIN + "# changed\n")
    seewhy.load_plugin(plugin)
    assert registry.METHODS["energy"] is not first


def test_a_failed_reload_keeps_the_earlier_methods(plugin: Path) -> None:
    seewhy.load_plugin(plugin)
    first, before = registry.METHODS["energy"], dict(registry.origins)
    plugin.write_text(PLUGIN + "\n1 / 0\n")
    with pytest.raises(MethodError, match="division by zero"):
        seewhy.load_plugin(plugin)
    assert registry.METHODS["energy"] is first and registry.origins == before


def test_files_of_the_same_name_in_two_folders(plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / plugin.name
    other.parent.mkdir()
    other.write_text(PLUGIN.replace('"energy"', '"other"'))
    seewhy.load_plugin(plugin)
    seewhy.load_plugin(other)
    assert {"energy", "other"} <= set(seewhy.list_methods())


class _Point:
    """An entry point of a package that is not installed."""

    def __init__(self, loaded: Any) -> None:
        self.name, self.value, self.dist, self._loaded = f"point{id(self)}", "there:methods", None, loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_entry_points_register_methods(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[Any] = [_Point([own(), own(name="other")]), _Point(own(name="third"))]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "seewhy.methods" else [])
    assert [name for name in seewhy.list_methods() if name in registry.origins] == ["energy", "other", "third"]
    assert explainer.explain(pixels(), "third").method == "third"
    assert importlib.metadata.entry_points(group="seewhy.methods") is not None
    points.append(_Point(ImportError("no such library")))
    with pytest.raises(MethodError, match=r"the methods of the installed package unknown .*: ImportError: no such lib"):
        seewhy.list_methods()
    assert explainer.explain(pixels(), "gradcam").method == "gradcam"  # built-in methods need no entry points
