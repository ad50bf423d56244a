"""Tests of `seewhy.contract.quantization`: reading, writing, and refusals of invalid values."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from seewhy import ModelFileError
from seewhy.contract.metadata import Metadata
from seewhy.contract.quantization import Drift
from support.quantization import DRIFT, QUANTIZATION
from support.tiny_model import Tiny


def read(**changes: Any) -> Metadata:
    """Return the metadata of a quantised file, with some fields of `seewhy.quantization` changed."""
    properties = replace(Tiny().metadata(), quantization=QUANTIZATION).to_properties()
    changed = {**json.loads(properties["seewhy.quantization"]), **changes}
    return Metadata.from_properties({**properties, "seewhy.quantization": json.dumps(changed)}, "m.onnx")


def test_round_trip() -> None:
    assert read().quantization == QUANTIZATION


def test_only_a_quantised_file_has_schema_3() -> None:
    assert read().schema == 3 and read().to_properties()["seewhy.schema"] == "3"
    assert Tiny().metadata().schema == 1 and "seewhy.quantization" not in Tiny().metadata().to_properties()


def test_a_file_without_varying_maps_has_no_correlation() -> None:
    constant = replace(DRIFT, constant_maps=96, correlation_median=None, correlation_p5=None, correlation_worst=None)
    found = read(drift=asdict(constant)).quantization
    assert found is not None and found.drift == constant and found.drift.value is None


def test_the_value_is_one_minus_the_5th_percentile() -> None:
    assert DRIFT.value == pytest.approx(0.0139)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"float32_sha256": "ab"}, "64 hexadecimal digits"),
        ({"weight_type": "int4"}, "one of int8"),
        ({"calibration_images": 0}, "a positive integer"),
        ({"kept_float": ["a", "a"]}, "each layer once"),
        ({"trades": [{"kept_float": 1}]}, "an object with kept_float, correlation_median"),
        ({"drift": None}, "an object"),
    ],
)
def test_values_that_are_not_valid(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelFileError, match=rf"m\.onnx: seewhy\.quantization is not valid: .*{reason}"):
        read(**changes)


@pytest.mark.parametrize(
    ("drift", "reason"),
    [
        (replace(DRIFT, images=0), "a positive integer"),
        (replace(DRIFT, constant_maps=97), "at most as many constant maps as images"),
        (replace(DRIFT, confident_images=97), "at most as many confident images as images"),
        (replace(DRIFT, correlation_p5=0.999), "in the order worst, 5th percentile, median"),
        (replace(DRIFT, correlation_p5=None), "in the order worst, 5th percentile, median"),
        (replace(DRIFT, constant_maps=96), "no correlations of constant maps"),
        (replace(DRIFT, correlation_worst=-1.5), "a number from -1 to 1"),
        (replace(DRIFT, top1_agreement=1.5), "a number from 0 to 1"),
        (replace(DRIFT, top1_agreement_confident=None), "an agreement of confident images exactly"),
        (replace(DRIFT, confident_images=0), "an agreement of confident images exactly"),
        (replace(DRIFT, logits_error=-0.1), "a number of at least 0"),
        (replace(DRIFT, speed=(replace(DRIFT.speed[0], int8_ms=0.0),)), "a positive number"),
    ],
)
def test_drift_that_contradicts_itself(drift: Drift, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        read(drift=asdict(drift))
