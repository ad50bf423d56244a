"""Tests of the door that methods and metrics share: registration, plugins and entry points."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seewhy
from seewhy import ArgumentError, Method, MethodError, Metric, MetricError, OutputError
from seewhy.methods import registry as methods
from seewhy.methods.plugins import read_plugin
from seewhy.metrics import registry as metrics
from support.registered import unregister_all


@dataclass(frozen=True)
class Door:
    """Registry of methods or of metrics, as its public functions show it."""

    kind: str
    registry: Any
    entries: dict[str, Any]
    register: Callable[..., Any]
    names: Callable[[], Sequence[str]]
    resolve: Callable[..., Any]
    own: Callable[..., Any]
    error: type[ArgumentError]
    built_in: str
    plugin: str


def own_method(name: str = "mine", title: str = "Mine", **more: Any) -> Method:
    return Method(name, title, ("activations",), True, lambda v, c: v["activations"].sum(axis=1), **more)


def own_metric(name: str = "mine", title: str = "Mine", **more: Any) -> Metric:
    return Metric(name, title, "other", "higher", lambda explanation, options: 0.5, **more)


METHOD_PLUGIN = """
import seewhy
seewhy.register_method(seewhy.Method("mine", "Mine", ("activations",), True, lambda v, c: v["activations"].sum(axis=1)))
"""
METRIC_PLUGIN = """
import seewhy
seewhy.register_metric(seewhy.Metric("mine", "Mine", "other", "higher", lambda explanation, options: 0.5))
"""
DOORS = {
    "method": Door(
        "method",
        methods,
        methods.METHODS,
        seewhy.register_method,
        seewhy.list_methods,
        lambda names, options=None: methods.resolve_methods(names, options, ["activations", "gradients"], "file"),
        own_method,
        MethodError,
        "gradcam",
        METHOD_PLUGIN,
    ),
    "metric": Door(
        "metric",
        metrics,
        metrics.METRICS,
        seewhy.register_metric,
        seewhy.list_metrics,
        metrics.resolve_metrics,
        own_metric,
        MetricError,
        "top-energy",
        METRIC_PLUGIN,
    ),
}


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    yield
    unregister_all()


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


@pytest.fixture
def plugin(door: Door, tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(door.plugin)
    return path


def everything() -> list[Any]:
    """Return copies of both registries and of their origins."""
    return [dict(one) for one in (methods.METHODS, methods.origins, metrics.METRICS, metrics.origins)]


def test_an_entry_is_found_by_its_name(door: Door) -> None:
    entry = door.own()
    assert door.register(entry) is entry
    assert door.names()[-1] == "mine" and door.names()[:-1] == [one for one in door.entries if one != "mine"]
    (request,) = door.resolve("mine")
    assert request.name == "mine" and getattr(request, door.kind) is entry
    assert door.registry.origins == {"mine": {"module": __name__}}


def test_the_wrong_type_is_not_registered(door: Door) -> None:
    other = DOORS["metric" if door.kind == "method" else "method"]
    for wrong in (other.own(), len, None):
        with pytest.raises(ArgumentError, match=f"^register_{door.kind} takes a seewhy.{door.kind.title()}, not "):
            door.register(wrong)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "Grad CAM"}, "at most 40 lower-case letters, digits, \\+ and -, .* it is 'Grad CAM'"),
        ({"name": "a" * 41}, "at most 40 lower-case letters"),
        ({"name": 3}, "it is 3"),
        ({"title": "two\nlines"}, "the title of KIND mine must be a printable text, not 'two"),
        ({"reference": None}, "the reference of KIND mine must be a text, not None"),
        ({"options": ["scale"]}, "the options of KIND mine must be a tuple of seewhy.Option, not \\['scale'\\]"),
        ({"options": ("scale",)}, "the options of KIND mine must be a tuple of seewhy.Option"),
    ],
)
def test_wrong_fields_are_refused(door: Door, fields: dict[str, Any], words: str) -> None:
    before = everything()
    with pytest.raises(ArgumentError, match=words.replace("KIND", door.kind)) as raised:
        door.register(door.own(**fields))
    assert "\n" not in str(raised.value) and everything() == before


def test_a_name_is_replaced_only_on_request(door: Door) -> None:
    first, second = door.own(), door.own()
    door.register(first)
    taken = f"a {door.kind} named mine exists already; choose another name, or register with replace=True"
    with pytest.raises(ArgumentError, match=taken):
        door.register(second)
    assert door.entries["mine"] is first
    door.register(second, replace=True)
    assert door.entries["mine"] is second
    for replace in (False, True):
        with pytest.raises(ArgumentError, match=f"a {door.kind} named {door.built_in} exists already; .* name$"):
            door.register(door.own(door.built_in), replace=replace)


def test_methods_and_metrics_have_different_names(door: Door) -> None:
    """An option METHOD.NAME could otherwise be meant for a metric, too."""
    other = DOORS["metric" if door.kind == "method" else "method"]
    assert not set(methods.METHODS) & set(metrics.METRICS)
    other.register(other.own())
    before = everything()
    for name in ("mine", other.built_in):
        for replace in (False, True):
            with pytest.raises(ArgumentError, match=f"^a {other.kind} named {name} exists already; .* name$"):
                door.register(door.own(name), replace=replace)
    assert everything() == before


def test_unknown_names(door: Door) -> None:
    close = door.built_in[:-1]
    with pytest.raises(door.error, match=f"^Unknown {door.kind} '{close}'. Did you mean '{door.built_in}'\\?$"):
        door.resolve(close)
    with pytest.raises(door.error, match=f"^Unknown {door.kind} 'qqqqq'. Known {door.kind}s: .*{door.built_in}"):
        door.resolve("qqqqq")
    joined = f"{door.built_in},{door.built_in}"
    with pytest.raises(door.error, match=f"give each {door.kind} by itself, as a list or with --{door.kind} once"):
        door.resolve(joined)
    with pytest.raises(door.error, match=f"^{door.kind} must be a name or a list of names, not 3"):
        door.resolve(3)
    with pytest.raises(door.error, match=f"^no {door.kind} given"):
        door.resolve([])


def test_each_is_resolved_once_and_in_order(door: Door) -> None:
    door.register(door.own())
    assert [one.name for one in door.resolve(["mine", door.built_in, "mine"])] == ["mine", door.built_in]


def test_options_of_wrong_entries(door: Door) -> None:
    kind, name = door.kind, door.built_in
    with pytest.raises(door.error, match=f"^options must be a dict of {kind}s and their options, not 3"):
        door.resolve(name, 3)
    with pytest.raises(door.error, match=f"^options are given for a {kind} that does not exist. Unknown {kind} 'none'"):
        door.resolve(name, {"none": {}})
    door.register(door.own())
    with pytest.raises(door.error, match=f"^options are given for mine, but the {kind}s are {name}$"):
        door.resolve(name, {"mine": {}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import seewhy\n", "plugin mine.py registers no method or metric; it must call seewhy.register_method"),
        ("def (:\n", "plugin mine.py, line 1: SyntaxError: invalid syntax"),
        ("x = 1\n1 / 0\n", "plugin mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import nothing_such\n", "plugin mine.py, line 1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("raise SystemExit(0)\n", "plugin mine.py, line 1: SystemExit"),
        (METHOD_PLUGIN.replace('"mine"', '"gradcam"'), "plugin mine.py, line 3: a method named gradcam exists already"),
        (METRIC_PLUGIN.replace('"mine"', '"gradcam"'), "plugin mine.py, line 3: a method named gradcam exists already"),
        (METHOD_PLUGIN + METRIC_PLUGIN, "plugin mine.py, line 6: a method named mine exists already"),
        (METHOD_PLUGIN + METRIC_PLUGIN.replace('"mine"', '"also"') + "boom\n", "line 7: NameError: name 'boom' is not"),
        ("\0", "plugin mine.py"),
    ],
)
def test_a_wrong_plugin_gives_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    before = everything()
    with pytest.raises(MethodError, match=words) as raised:
        seewhy.load_plugin(tmp_path / "mine.py")
    assert "\n" not in str(raised.value) and everything() == before


def test_plugins_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the plugin cannot be read: No such file"):
        seewhy.load_plugin(tmp_path / "none.py")
    with pytest.raises(OutputError, match="the plugin cannot be read"):
        seewhy.load_plugin(tmp_path)
    for wrong in (3, "\0", None):
        with pytest.raises(ArgumentError, match="a plugin must be a path"):
            read_plugin(wrong)  # type: ignore[arg-type]


def test_the_same_plugin_runs_once(door: Door, plugin: Path) -> None:
    loaded = seewhy.load_plugin(plugin)
    assert door.registry.origins == {"mine": {"plugin": "mine.py", "sha256": loaded.sha256}}
    first = door.entries["mine"]
    seewhy.load_plugin(plugin)
    assert door.entries["mine"] is first
    plugin.write_text(door.plugin + "# changed\n")
    seewhy.load_plugin(plugin)
    assert door.entries["mine"] is not first


def test_a_plugin_may_register_both(tmp_path: Path) -> None:
    both = tmp_path / "both.py"
    both.write_text(METHOD_PLUGIN + METRIC_PLUGIN.replace('"mine"', '"also"'))
    loaded = seewhy.load_plugin(both)
    origin = {"plugin": "both.py", "sha256": loaded.sha256}
    assert methods.origins == {"mine": origin} and metrics.origins == {"also": origin}
    # A new version may turn the one into the other.
    both.write_text(METRIC_PLUGIN)
    seewhy.load_plugin(both)
    assert not methods.origins and list(metrics.origins) == ["mine"] and "also" not in metrics.METRICS


def test_a_failed_reload_keeps_the_earlier_entries(door: Door, plugin: Path) -> None:
    seewhy.load_plugin(plugin)
    before = everything()
    plugin.write_text(door.plugin + "\n1 / 0\n")
    with pytest.raises(MethodError, match="division by zero"):
        seewhy.load_plugin(plugin)
    assert everything() == before


def test_files_of_the_same_name_in_two_folders(door: Door, plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / plugin.name
    other.parent.mkdir()
    other.write_text(door.plugin.replace('"mine"', '"other"'))
    seewhy.load_plugin(plugin)
    seewhy.load_plugin(other)
    assert {"mine", "other"} <= set(door.names())


class _Point:
    """An entry point of a package that is not installed."""

    def __init__(self, loaded: Any) -> None:
        self.name, self.value, self.dist, self._loaded = f"point{id(self)}", "there:entries", None, loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_entry_points(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[Any] = [_Point([door.own(), door.own("other")]), _Point(door.own("third"))]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == f"seewhy.{door.kind}s" else []
    )
    assert [name for name in door.names() if name in door.registry.origins] == ["mine", "other", "third"]
    (request,) = door.resolve("third")
    assert request.name == "third" and door.registry.origins["third"] == {"package": "unknown"}
    points.append(_Point(ImportError("no such library")))
    with pytest.raises(door.error, match=f"the {door.kind}s of the installed package unknown .*: ImportError: no such"):
        door.names()
    assert door.resolve(door.built_in)[0].name == door.built_in  # built-in entries need no entry points
    points[-1] = _Point(np.zeros(3))
    with pytest.raises(door.error, match=f"ArgumentError: register_{door.kind} takes a seewhy.{door.kind.title()}"):
        door.names()
