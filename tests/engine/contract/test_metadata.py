"""Tests of `seewhy.contract.metadata`: writing, reading, and one-line errors for invalid values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from seewhy import ModelFileError
from seewhy.contract import constants as contract
from seewhy.contract.json_values import first_repeated, text
from seewhy.contract.metadata import Metadata, ParameterGroup, Rectifiers
from support.tiny_model import Tiny


def properties(**changes: Any) -> dict[str, str]:
    """Return the metadata of a tiny model as JSON texts by key, with some values changed."""
    found = Tiny().metadata().to_properties()
    return {**found, **{contract.KEY_PREFIX + key: json.dumps(value) for key, value in changes.items()}}


def test_round_trip() -> None:
    data = replace(
        Tiny().metadata(),
        labels=("chat", "犬", "a\tb", ""),
        class_count=4,
        rectifiers=Rectifiers({"relu6": 3}, 1, ("features",), {"silu": 2}),
        parity={"gradients": {"picture": {"error": None, "torch_float32": 1.5e-7}}},
        external_data={"file": "m.onnx.data", "sha256": "ab" * 32},
        parameters=(ParameterGroup("fc", ("fc.weight", "fc.bias")), ParameterGroup("", ("scale",))),
    )
    assert Metadata.from_properties(data.to_properties(), "m.onnx") == data
    bare = replace(Tiny().metadata(), labels=None, preprocessing=None, layer=None)
    assert Metadata.from_properties(bare.to_properties(), "m.onnx") == bare


def test_an_older_file_lists_no_parameters() -> None:
    assert Metadata.from_properties(properties(), "m.onnx").parameters is None


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"fc": ["fc.weight"]}, "expected a list"),
        ([{"module": "fc"}], "expected an object with module, tensors"),
        ([{"module": "fc", "tensors": "fc.weight"}], "expected a list"),
        ([{"module": "fc", "tensors": []}], "expected at least one tensor in each group"),
        ([{"module": 3, "tensors": ["a"]}], "expected a string"),
        ([{"module": "fc", "tensors": ["a", "a"]}], "the tensor 'a' is listed twice"),
        ([{"module": "fc", "tensors": ["a"]}, {"module": "fc", "tensors": ["b"]}], "the module 'fc' is listed twice"),
    ],
)
def test_parameters_that_are_not_valid(parameters: Any, reason: str) -> None:
    with pytest.raises(ModelFileError, match=rf"m\.onnx: seewhy\.parameters is not valid: {reason}"):
        Metadata.from_properties(properties(parameters=parameters), "m.onnx")


def test_values_are_json() -> None:
    for key, value in Tiny().metadata().to_properties().items():
        assert key.startswith(contract.KEY_PREFIX)
        json.loads(value)


def test_no_metadata() -> None:
    with pytest.raises(ModelFileError, match=r"m\.onnx: this ONNX file has no SeeWhy metadata; .*seewhy export"):
        Metadata.from_properties({"producer": "someone"}, "m.onnx")


def test_newer_schema_names_both_versions() -> None:
    with pytest.raises(ModelFileError, match=r"schema 7, but .* schema 3 and older; upgrade seewhy"):
        Metadata.from_properties(properties(schema=7), "m.onnx")


@pytest.mark.parametrize("key", Tiny().metadata().to_properties())
def test_missing_key(key: str) -> None:
    found = properties()
    del found[key]
    with pytest.raises(ModelFileError) as raised:
        Metadata.from_properties(found, "m.onnx")
    assert "m.onnx" in str(raised.value) and "\n" not in str(raised.value)
    if key != "seewhy.schema":
        assert key in str(raised.value)


PREPROCESSING = Tiny().metadata().to_properties()["seewhy.preprocessing"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "1"),
        ("schema", 0),
        ("schema", True),
        ("model", {"name": "x"}),
        ("model", []),
        ("input", {"image_size": [224], "channels": 3, "classes": 10}),
        ("input", {"image_size": [224, -1], "channels": 3, "classes": 10}),
        ("input", {"image_size": [224, 224], "channels": 3, "classes": 1.5}),
        ("input", {"image_size": [10**6, 10**6], "channels": 3, "classes": 10}),
        ("input", {"image_size": [1, 178_956_971], "channels": 3, "classes": 10}),
        ("labels", "tabby"),
        ("labels", [1, 2]),
        # JSON may contain half of a surrogate pair, and integers of any length.
        ("labels", ["\ud83d"]),
        ("versions", {"\ud83d": "1"}),
        ("labels", ["tabby", "x" * 8193]),
        ("labels", ["ü" * 4097]),
        ("versions", {"x" * 8193: "1"}),
        ("model", {"name": "x" * 8193, "source": "", "weights_sha256": ""}),
        ("schema", 2**31),
        ("input", {"image_size": [224, 224], "channels": 3, "classes": 10**4000}),
        ("rectifiers", {"kinds": {"relu": 2**31}, "guided": 0, "guided_scope": None, "smooth": {}}),
        ("preprocessing", {**json.loads(PREPROCESSING), "resize": "shorter-side", "size": 10**300}),
        ("layer", {"name": "x", "chosen": "by dice", "separates": True, "cut": None}),
        ("score", "maximum"),
        ("rectifiers", {"kinds": {"relu": -1}, "guided": 0, "guided_scope": None, "smooth": {}}),
        ("parity", {"logits": {"noise": {"error": "small"}}}),
        ("versions", {"torch": 2}),
        ("external_data", {"file": "x", "sha256": "zz"}),
        ("preprocessing", {**json.loads(PREPROCESSING), "resize": "stretch"}),
        ("preprocessing", {**json.loads(PREPROCESSING), "std": [1, 0, 1]}),
        # These become zero or infinity in float32.
        ("preprocessing", {**json.loads(PREPROCESSING), "std": [1, 1e-300, 1]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "std": [1, 1e39, 1]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "mean": [1e300, 0, 0]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "mean": [0, -1e39, 0]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "mean": [0.5]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "mean": [float("nan"), 0, 0]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "mean": [10**400, 0, 0]}),
        ("preprocessing", {**json.loads(PREPROCESSING), "resize": "shorter-side", "size": None}),
    ],
)
def test_wrong_value(key: str, value: object) -> None:
    with pytest.raises(ModelFileError, match=f"m.onnx: seewhy.{key} is not valid: ") as raised:
        Metadata.from_properties(properties(**{key: value}), "m.onnx")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("label", ["x" * 8192, "ü" * 4096])
def test_a_string_may_have_8192_bytes(label: str) -> None:
    assert Metadata.from_properties(properties(labels=[label]), "m.onnx").labels == (label,)
    text(label)
    with pytest.raises(ValueError, match="expected a string of at most 8192 bytes"):
        text(label + "x")


@pytest.mark.parametrize("text", ['{"torch": "2", "torch": "3"}', '{"torch": "2", "x": {"a": 1, "a": 1}}'])
def test_repeated_names_are_refused(text: str) -> None:
    """Readers would use different values."""
    with pytest.raises(ModelFileError, match=r"seewhy.versions is not valid: '\w+' is given twice"):
        Metadata.from_properties({**properties(), "seewhy.versions": text}, "m.onnx")


def test_first_repeated_takes_linear_time() -> None:
    """Searching the whole list for each name would take an hour."""
    names = [str(number) for number in range(200_000)]
    assert first_repeated(names) is None
    assert first_repeated([*names, "77", "5"]) == "77"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", "'a'"])
def test_not_json(text: str) -> None:
    with pytest.raises(ModelFileError, match="seewhy.labels is not valid"):
        Metadata.from_properties({**properties(), "seewhy.labels": text}, "m.onnx")


def test_a_later_exporter_may_add_fields() -> None:
    model = {**json.loads(properties()["seewhy.model"]), "license": "Apache-2.0"}
    assert Metadata.from_properties(properties(model=model, extra=1), "m.onnx") == Tiny().metadata()
