"""Tests of `seewhy.methods.options`: accepted values, and one line for each value that is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, MethodError
from seewhy.methods.options import Option, choice, integer, number, parse_options, resolve_options
from seewhy.methods.registry import METHODS
from support.markdown import table

KNOWN = (
    Option("samples", 25, integer(1, 100), "copies"),
    Option("noise", 0.15, number(0, 1), "level"),
    Option("rule", "a", choice(["a", "b"]), "which"),
)


def test_defaults() -> None:
    assert (
        resolve_options("m", KNOWN, None)
        == resolve_options("m", KNOWN, {})
        == {"samples": 25, "noise": 0.15, "rule": "a"}
    )
    for method in METHODS.values():
        assert resolve_options(method.name, method.options, None) == {
            option.name: option.default for option in method.options
        }


def test_every_option_is_in_the_documents() -> None:
    """The document has the same options and defaults; `table` finds its only table of options."""
    documented = {row[0].strip("`"): row[1].strip("`") for row in table("docs/concepts/semantics.md", "option")}
    options = [(method, option) for method in METHODS.values() for option in method.options]
    assert documented == {f"{method.name}.{option.name}": str(option.default) for method, option in options}


def test_values_are_converted_to_the_methods_types() -> None:
    found = resolve_options("m", KNOWN, {"samples": np.int32(7), "noise": 1, "rule": "b"})
    assert found == {"samples": 7, "noise": 1.0, "rule": "b"}
    assert [type(value) for value in found.values()] == [int, float, str]
    assert type(resolve_options("m", KNOWN, {"noise": np.float32(0.5)})["noise"]) is float


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"samples": 0}, "m: samples must be an integer from 1 to 100, not 0"),
        ({"samples": 101}, "m: samples must be an integer from 1 to 100, not 101"),
        ({"samples": 2.0}, "m: samples must be an integer from 1 to 100, not 2.0"),
        ({"samples": True}, "m: samples must be an integer from 1 to 100, not True"),
        ({"samples": "many\x1b"}, "m: samples must be an integer from 1 to 100, not 'many\\x1b'"),
        ({"samples": None}, "m: samples must be an integer from 1 to 100, not None"),
        ({"noise": -0.1}, "m: noise must be a number from 0 to 1, not -0.1"),
        ({"noise": math.nan}, "m: noise must be a number from 0 to 1, not nan"),
        ({"noise": math.inf}, "m: noise must be a number from 0 to 1, not inf"),
        ({"noise": "much"}, "m: noise must be a number from 0 to 1, not 'much'"),
        ({"noise": np.zeros(99)}, "m: noise must be a number from 0 to 1, not ndarray"),
        ({"rule": "c"}, "m: rule must be one of a, b, not 'c'"),
        ({"rule": ["a"]}, "m: rule must be one of a, b, not ['a']"),
        ({"sample": 3}, "m has no option 'sample'; it has samples, noise, rule. Did you mean 'samples'?"),
        ({3: 3}, "m has no option 3; it has samples, noise, rule."),
        ([("samples", 3)], "the options of m must be a dict of names and values, not [('samples', 3)]"),
    ],
)
def test_wrong_options(given: Any, words: str) -> None:
    with pytest.raises(MethodError) as raised:
        resolve_options("m", KNOWN, given)
    assert str(raised.value) == words


def test_options_are_parsed_from_text() -> None:
    texts = ["smoothgrad.samples=50", "smoothgrad.noise=0.2", "integrated-gradients.baseline=black", "a.b=1e3", "a.c="]
    assert parse_options(texts) == {
        "smoothgrad": {"samples": 50, "noise": 0.2},
        "integrated-gradients": {"baseline": "black"},
        "a": {"b": 1000.0, "c": ""},
    }
    assert type(parse_options(["a.b=-7"])["a"]["b"]) is int
    assert parse_options([f"a.b={'9' * 5000}"])["a"]["b"] == math.inf  # refused later, because it is not finite
    assert parse_options([]) == {}


@pytest.mark.parametrize("text", ["", "samples=3", "smoothgrad.samples", "smoothgrad.=3", ".samples=3", "=", "a.b\n"])
def test_malformed_options_are_refused(text: str) -> None:
    with pytest.raises(
        MethodError, match=r"an option must have the form METHOD\.NAME=VALUE, such as smoothgrad\.samples=50, not "
    ):
        parse_options([text])


@pytest.mark.parametrize("text", ["5e0", "1_0", "inf", " 7.50", "-0.0"])
def test_messages_show_numbers_in_the_users_spelling(text: str) -> None:
    given = parse_options([f"m.samples={text}"])["m"]
    assert given["samples"] == float(text)
    with pytest.raises(MethodError) as raised:
        resolve_options("m", KNOWN, given)
    assert str(raised.value) == f"m: samples must be an integer from 1 to 100, not {text}"


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(MethodError, match=r"the option a\.b is given twice"):
        parse_options(["a.b=1", "a.c=1", "a.b=2"])


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        (
            "smoothgrad",
            {"smothgrad": {}},
            "options are given for a method that does not exist. Unknown method 'smothgrad'. Did you mean 'smoothgrad'",
        ),
        ("smoothgrad", {"scorecam": {}}, "options are given for scorecam, but the methods are smoothgrad"),
        ("gradcam", {"gradcam": {"samples": 3}}, "gradcam has no option 'samples'; it has none"),
        ("smoothgrad", {"smoothgrad": {"samples": 0}}, "smoothgrad: samples must be an integer from 1 to"),
        ("smoothgrad", {"smoothgrad": {"seed": -1}}, "smoothgrad: seed must be an integer from 0 to"),
        ("integrated-gradients", {"integrated-gradients": {"rule": "simpson"}}, "must be one of gauss-legendre, mid"),
        ("integrated-gradients", {"integrated-gradients": {"baseline": "blue"}}, "must be one of zero, black, grey"),
        ("smoothgrad", ["smoothgrad.samples=3"], "options must be a dict of methods and their options"),
    ],
)
def test_errors_of_the_explainer(explainer: Explainer, method: str, options: Any, words: str) -> None:
    with pytest.raises(MethodError, match=words) as raised:
        explainer.explain(np.zeros((1, 3, 12, 16), np.float32), method=method, options=options)
    assert "\n" not in str(raised.value)
