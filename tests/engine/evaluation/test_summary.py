"""Tests of the summary: its numbers follow from the records, and nothing is dropped."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from seewhy import OutputError
from seewhy.evaluation.summary import OTHER_REASONS
from support.evaluation_records import around, case, typical


def test_numbers_by_hand() -> None:
    values = {"deletion": {"layercam": [1.0, 2.0, 6.0], "gradcam": [2.0, 4.0, 9.0]}}
    summary = case(values, failed=2).summary()
    assert summary["images"] == {"measured": 3, "failed": 2, "clusters": 3}
    assert summary["metrics"]["deletion"]["layercam"] == {
        "mean": 3.0,
        "low": 1.0,
        "high": 6.0,
        "n": 3,
        "direction": "lower",
        "unmeasured": 0,
        "reasons": {},
        "details": {},
    }
    # All three differences have the same sign: 2 of 8 flips are as extreme.
    assert summary["comparisons"]["deletion"] == [
        {"first": "layercam", "second": "gradcam", "difference": -2.0, "n": 3, "p": 0.25, "p_holm": 0.25}
    ]


def test_unmeasured_values_are_counted_with_their_reasons() -> None:
    values = {"deletion": {"layercam": [1.0, "constant", "constant", "NaN"], "gradcam": [3.0, 4.0, "constant", 7.0]}}
    found = case(values).summary()["metrics"]["deletion"]
    assert [found["layercam"][key] for key in ("mean", "n", "unmeasured")] == [1.0, 1, 3]
    assert found["layercam"]["reasons"] == {"constant": 2, "NaN": 1}
    assert found["layercam"]["low"] is None and found["layercam"]["high"] is None


def test_pairs_are_compared_where_both_have_a_value() -> None:
    values = {"deletion": {"layercam": [1.0, "constant", 5.0], "gradcam": [2.0, 50.0, 4.5]}}
    (pair,) = case(values).summary()["comparisons"]["deletion"]
    assert (pair["n"], pair["difference"]) == (2, -0.25)


def test_holm_counts_all_pairs_with_the_references() -> None:
    values = {"deletion": {"layercam": [0.0] * 12, "gradcam": [1.0] * 12, "random": [3.0] * 12}}
    pairs = case(values).summary()["comparisons"]["deletion"]
    assert [one["p"] for one in pairs] == [2 / 4096] * 3
    assert [one["p_holm"] for one in pairs] == [3 * 2 / 4096] * 3


def test_crops_of_an_image_are_one_cluster() -> None:
    values = {"deletion": {"layercam": [0.0, 0.0, 1.0, 1.0], "gradcam": [1.0, 1.0, 2.0, 2.0]}}
    summary = case(values, clusters=["a", "a", "b", "b"]).summary()
    assert summary["images"] == {"measured": 4, "failed": 0, "clusters": 2}
    assert summary["comparisons"]["deletion"][0]["p"] == 0.5
    one = case(values, clusters=["a"] * 4).summary()
    assert one["metrics"]["deletion"]["layercam"]["low"] is None
    assert one["comparisons"]["deletion"][0]["p"] == 1


def test_curves_are_averaged_step_by_step() -> None:
    values = {"deletion": {"layercam": [1.0, 1.0, "constant"]}, "entropy": {"layercam": [1.0, 1.0, 1.0]}}
    curves = {"deletion": {"layercam": [[1.0, 0.5, 0.0], [0.5, 0.5, 0.25], None]}}
    found = case(values, curves=curves).summary()["curves"]
    assert found.keys() == {"deletion"}
    assert found["deletion"]["layercam"] == {
        "mean": [0.75, 0.5, 0.125],
        "low": [0.5, 0.5, 0.0],
        "high": [1.0, 0.5, 0.25],
        "n": 2,
    }


@pytest.mark.parametrize("second", [[0.5, 0.5], [0.5, math.inf, 0.5]])
def test_curves_that_have_no_mean_are_left_out(second: list[float]) -> None:
    values = {"deletion": {"layercam": [1.0, 1.0]}}
    found = case(values, curves={"deletion": {"layercam": [[1.0, 0.5, 0.0], second]}}).summary()["curves"]
    assert found == ({} if len(second) == 2 else {"deletion": {"layercam": found["deletion"]["layercam"]}})
    if found:
        assert found["deletion"]["layercam"]["n"] == 1


def test_details_of_the_cost_are_averaged() -> None:
    found = case({"cost": {"layercam": [1.0, 2.0]}})
    for record, passes in zip(found.records, (4, 8), strict=True):
        record["metrics"]["cost"]["layercam"]["details"] = {"passes": passes, "bytes": 196, "note": "text"}
    assert found.summary()["metrics"]["cost"]["layercam"]["details"] == {"passes": 6.0, "bytes": 196.0}


def test_conventions_and_rows() -> None:
    summary = case({"deletion": {"layercam": [1.0], "backprop": [1.0], "random": [1.0]}}).summary()
    assert summary["conventions"]["deletion"] == {"steps": 20}
    assert summary["conventions"]["reduction"].keys() >= {"backprop"}
    assert "layercam" not in summary["conventions"]["reduction"]
    assert [(one["name"], one["reference"]) for one in summary["methods"]] == [
        ("layercam", False),
        ("backprop", False),
        ("random", True),
    ]


def test_left_out_metrics_have_no_results() -> None:
    found = case({"deletion": {"layercam": [1.0], "gradcam": [1.0]}, "completeness": {"layercam": [1.0]}})
    found.left_out.append({"metric": "deletion", "method": None, "reason": "the model has no probabilities"})
    summary = found.summary()
    assert summary["metrics"].keys() == {"completeness"}
    assert summary["metrics"]["completeness"].keys() == {"layercam"}
    assert len(summary["left_out"]) == 2


def test_a_summary_is_valid_json() -> None:
    for one in (typical(), case({"deletion": {"layercam": ["constant"]}}), case({"deletion": {"layercam": [0.5]}})):
        summary = one.summary()
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_no_images() -> None:
    found = typical()
    found.records = []
    summary = found.summary()
    assert summary["images"] == {"measured": 0, "failed": 0, "clusters": 0}
    assert summary["metrics"]["deletion"]["layercam"]["mean"] is None
    assert summary["recommendation"] == ["No image was measured, so there is nothing to recommend."]


def test_rare_reasons_are_counted_together() -> None:
    reasons = [f"reason {i}" for i in range(30)]
    found = case({"deletion": {"layercam": [*reasons, "frequent", "frequent"]}}).summary()["metrics"]["deletion"]
    counts = found["layercam"]["reasons"]
    assert counts["frequent"] == 2 and counts[OTHER_REASONS] == 21 and sum(counts.values()) == 32


def test_equal_seeds_give_equal_results() -> None:
    assert typical().summary() == typical().summary()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200, 10**400])
def test_a_number_that_cannot_be_averaged_is_unmeasured(value: Any) -> None:
    found = case({"deletion": {"layercam": [1.0, 2.0]}})
    found.records[0]["metrics"]["deletion"]["layercam"] = {"value": value}
    row = found.summary()["metrics"]["deletion"]["layercam"]
    assert (row["mean"], row["unmeasured"]) == (2.0, 1)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        None,
        [],
        {"value": None},
        {"value": None, "reason": 3},
        {"value": "0.5"},
        {"value": True},
        {"value": 0.5, "curve": "abc"},
        {"value": 0.5, "curve": [None]},
        {"value": 0.5, "details": 3},
    ],
)
def test_a_damaged_record_is_refused(entry: Any) -> None:
    found = case({"deletion": {"layercam": [1.0, 2.0]}})
    found.records[1]["metrics"]["deletion"]["layercam"] = entry
    with pytest.raises(OutputError, match="images/1.png: .* no valid measurement of deletion for layercam"):
        found.summary()


def test_a_record_without_a_metric_is_refused() -> None:
    found = case({"deletion": {"layercam": [1.0, 2.0]}})
    del found.records[1]["metrics"]
    with pytest.raises(OutputError, match="images/1.png"):
        found.summary()


def test_means_of_the_typical_case() -> None:
    found = typical(count=30).summary()["metrics"]
    assert found["deletion"]["layercam"]["mean"] == pytest.approx(0.11)
    np.testing.assert_allclose(np.mean(around(0.3, 20)), 0.3)
