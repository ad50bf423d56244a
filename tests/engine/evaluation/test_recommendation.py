"""Tests of the recommendation: each sentence follows from the numbers, and reads well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from seewhy.evaluation.clear_differences import metric_results
from support.evaluation_records import TITLES, around, case, typical_summary


def sentences(values: Mapping[str, Mapping[str, Any]], **more: Any) -> list[str]:
    return case(values, **more).summary()["recommendation"]


def means(spread: float = 0.05, count: int = 30, **by_metric: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return values with these means for LayerCAM, Grad-CAM, Backprop and so on."""
    return {
        metric.replace("_", "-"): {
            name: around(mean, count, spread, seed)
            for seed, (name, mean) in enumerate(zip(TITLES, found, strict=False))
        }
        for metric, found in by_metric.items()
    }


def test_the_best_method_by_all_metrics_is_named() -> None:
    assert sentences(means(deletion=(0.1, 0.3, 0.5), insertion=(0.9, 0.5, 0.6))) == [
        "LayerCAM is the most faithful method for this model (deletion and insertion)."
    ]


def test_metrics_without_a_winner_are_named() -> None:
    assert sentences(means(deletion=(0.1, 0.3), insertion=(0.5, 0.5))) == [
        "LayerCAM is the most faithful method for this model (deletion), and no method is clearly better by insertion."
    ]


def test_metrics_that_disagree_name_no_best_method() -> None:
    assert sentences(means(deletion=(0.1, 0.3), insertion=(0.5, 0.9), average_drop=(0.1, 0.1))) == [
        "By deletion, LayerCAM is clearly the best method.",
        "By insertion, Grad-CAM is clearly the best method.",
        "By average-drop, there is no clear difference between LayerCAM and Grad-CAM.",
        "These metrics disagree: no method is the most faithful overall.",
    ]


def test_a_winner_that_another_metric_contradicts_is_not_the_best() -> None:
    # By insertion two methods are better than LayerCAM, but neither of them wins.
    assert sentences(means(deletion=(0.1, 0.3, 0.3), insertion=(0.5, 0.9, 0.9))) == [
        "By deletion, LayerCAM is clearly the best method.",
        "By insertion, no method is clearly better than Grad-CAM or Backprop, and there is no clear difference between "
        "the two.",
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, "LayerCAM and Grad-CAM"),
        (3, "LayerCAM, Grad-CAM and Backprop"),
        (4, "LayerCAM, Grad-CAM, Backprop and Guided backprop"),
    ],
)
def test_methods_without_a_clear_difference(count: int, expected: str) -> None:
    values = means(spread=0.3, deletion=(0.3, 0.31, 0.32, 0.33)[:count], insertion=(0.5, 0.51, 0.52, 0.53)[:count])
    assert sentences(values) == [f"By deletion and insertion, there is no clear difference between {expected}."]


def test_many_methods_without_a_clear_difference_are_counted() -> None:
    values = {"deletion": {f"m{i}": around(0.3, 30, 0.05, i) for i in range(6)}}
    assert sentences(values) == ["By deletion, there is no clear difference between the 6 methods."]


def test_some_leaders() -> None:
    assert sentences(means(deletion=(0.1, 0.1, 0.5))) == [
        "By deletion, no method is clearly better than LayerCAM or Grad-CAM, and there is no clear difference between "
        "the two."
    ]


def test_a_leader_that_is_not_better_than_all() -> None:
    # LayerCAM and Backprop share only 9 images, which are too few, so that they are not compared.
    values = means(deletion=(0.1, 0.5, 0.9))
    values["deletion"]["layercam"][19:] = ["constant"] * 11
    values["deletion"]["backprop"][:10] = ["constant"] * 10
    found = sentences(values)
    assert found[0] == (
        "By deletion, no method is clearly better than LayerCAM, which is not clearly better than all others."
    )


def test_comparisons_over_different_images_may_contradict_each_other() -> None:
    a, b, c = ([0.5] * 36 for _ in range(3))
    hidden: dict[str, list[Any]] = {"layercam": [*a], "gradcam": [*b], "backprop": [*c]}
    for i in range(12):
        # Where two methods have values, the first is better: LayerCAM, Grad-CAM, Backprop and again LayerCAM.
        hidden["layercam"][i], hidden["gradcam"][i], hidden["backprop"][i] = 0.1, 0.9, "constant"
        hidden["gradcam"][12 + i], hidden["backprop"][12 + i], hidden["layercam"][12 + i] = 0.1, 0.9, "constant"
        hidden["backprop"][24 + i], hidden["layercam"][24 + i], hidden["gradcam"][24 + i] = 0.1, 0.9, "constant"
    assert sentences({"deletion": hidden})[0] == (
        "By deletion, the methods cannot be ranked, because they have values for different images."
    )


def test_a_metric_of_some_methods_is_told_by_itself() -> None:
    values = means(deletion=(0.1, 0.3, 0.5, 0.6))
    values["completeness"] = {"backprop": around(0.4), "guided-backprop": around(0.9)}
    assert sentences(values) == [
        "LayerCAM is the most faithful method for this model (deletion).",
        "By completeness, Backprop is clearly the best of the 2 methods that have values.",
    ]


def test_localisation_has_its_own_sentence() -> None:
    assert sentences(means(deletion=(0.1, 0.3), grid_pointing=(0.4, 0.7))) == [
        "LayerCAM is the most faithful method for this model (deletion).",
        "Grad-CAM locates the explained class best (grid-pointing).",
        "Grad-CAM locates the explained class better than LayerCAM (grid-pointing).",
    ]


def test_a_metric_without_a_direction_ranks_nothing() -> None:
    assert sentences(means(odd=(0.1, 0.9))) == [
        "No metric of faithfulness or localisation compares the methods, so none is recommended."
    ]


def test_methods_that_are_not_better_than_a_reference() -> None:
    values = means(deletion=(0.1, 0.4, 0.6, 0.7), insertion=(0.9, 0.6, 0.4, 0.3))
    values["deletion"] |= {"random": around(0.6, seed=8), "centre": around(0.4, seed=9)}
    values["insertion"] |= {"random": around(0.4, seed=8), "centre": around(0.6, seed=9)}
    assert sentences(values)[1:] == [
        "Backprop is not clearly better than shuffled values (random) by deletion and insertion.",
        "Guided backprop is clearly worse than shuffled values (random) by deletion and insertion.",
        "Grad-CAM is not clearly better than a centred Gaussian (centre) by deletion and insertion.",
        "Backprop and Guided backprop are clearly worse than a centred Gaussian (centre) by deletion and insertion.",
    ]


def test_all_methods_may_fail_against_a_reference() -> None:
    values = means(deletion=(0.5, 0.6, 0.7))
    values["deletion"]["centre"] = around(0.1)
    assert "All methods are clearly worse than a centred Gaussian (centre) by deletion." in sentences(values)


def test_one_method_is_compared_with_the_references() -> None:
    values = {"deletion": {"layercam": around(0.2), "random": around(0.5), "centre": around(0.2, seed=4)}}
    assert sentences(values) == [
        "Only one method was measured, so it can be compared with the reference rows alone.",
        "LayerCAM is clearly better than shuffled values (random) by deletion.",
        "LayerCAM is not clearly better than a centred Gaussian (centre) by deletion.",
    ]


BOTH = "hardly {} with the class and {} randomization: do not use {} to judge the model."


@pytest.mark.parametrize(
    ("same", "similar", "expected"),
    [
        ((0.3, 0.4), (0.1, 0.1), []),
        ((0.3, 0.97), (0.1, 0.8), [f"Grad-CAM {BOTH.format('changes', 'fails', 'it')}"]),
        ((0.97, 0.97), (0.8, 0.8), [f"LayerCAM and Grad-CAM {BOTH.format('change', 'fail', 'them')}"]),
        (
            (0.3, 0.97),
            (0.8, 0.1),
            [
                "Grad-CAM hardly changes with the class: do not use it to see why the model chose one class and not "
                "another.",
                "LayerCAM fails randomization: do not use it to judge the model.",
            ],
        ),
        (
            (0.97, 0.97),
            (0.1, 0.1),
            [
                "LayerCAM and Grad-CAM hardly change with the class: do not use them to see why the model chose one "
                "class and not another."
            ],
        ),
    ],
)
def test_methods_that_do_not_depend_on_the_class_or_the_weights(
    same: Sequence[float], similar: Sequence[float], expected: list[str]
) -> None:
    values = means(spread=0.02, class_sensitivity=same, randomization=similar)
    assert [one for one in sentences(values) if "do not use" in one] == expected


def test_a_limit_is_exceeded_only_if_the_whole_interval_is_above_it() -> None:
    values = means(spread=0.3, class_sensitivity=(0.93, 0.95), randomization=(0.55, 0.53))
    found = case(values).summary()
    assert found["metrics"]["class-sensitivity"]["layercam"]["low"] < 0.9
    assert not any("do not use" in one for one in found["recommendation"])


def test_trade_offs_of_the_best_method() -> None:
    values = means(
        deletion=(0.1, 0.3, 0.5),
        stability=(0.5, 0.1, 0.1),
        sparseness=(0.5, 0.3, 0.9),
        entropy=(9.0, 9.5, 8.0),
        odd=(1.0, 2.0, 3.0),
        cost=(30.0, 10.0, 12.0),
    )
    assert sentences(values)[1:] == [
        "Grad-CAM and Backprop are more stable than LayerCAM (stability).",
        "Backprop is more concentrated than LayerCAM (sparseness and entropy).",
        "LayerCAM costs 3.0 times as much as Grad-CAM (cost).",
    ]


def test_metrics_of_a_group_that_disagree_give_no_trade_off() -> None:
    found = sentences(means(deletion=(0.1, 0.3), sparseness=(0.3, 0.9), entropy=(8.0, 9.0)))
    assert not any("concentrated" in one for one in found)


def test_trade_offs_between_methods_that_lead_together() -> None:
    values = means(deletion=(0.1, 0.1, 0.5), stability=(0.5, 0.1, 0.01), cost=(10.0, 20.0, 1.0))
    assert sentences(values)[1:] == [
        "Grad-CAM is more stable than LayerCAM (stability).",
        "Grad-CAM costs 2.0 times as much as LayerCAM (cost).",
    ]


def test_a_method_that_fails_randomization_is_no_alternative() -> None:
    values = means(spread=0.02, deletion=(0.1, 0.3), sparseness=(0.3, 0.9), randomization=(0.1, 0.9))
    assert not any("concentrated" in one for one in sentences(values))


def test_a_small_difference_of_cost_is_not_mentioned() -> None:
    assert not any("cost" in one for one in sentences(means(deletion=(0.1, 0.3), cost=(12.0, 10.0))))


def test_many_missing_values_are_told() -> None:
    values = means(deletion=(0.1, 0.3), insertion=(0.9, 0.5))
    values["deletion"]["gradcam"][:3] = values["insertion"]["gradcam"][:3] = ["constant"] * 3
    values["deletion"]["layercam"][:2] = ["constant"] * 2
    values["stability"] = {"layercam": ["no prediction"] * 30, "gradcam": around(0.3)}
    assert sentences(values)[1:] == [
        "Grad-CAM lacks a value of deletion and insertion for 3 of 30 images, so the means describe the other images "
        "only.",
        "LayerCAM lacks a value of stability for every image.",
    ]


def test_values_that_all_methods_lack_are_told_together() -> None:
    values = means(deletion=(0.1, 0.3, 0.5))
    for found in values["deletion"].values():
        found[:5] = ["constant"] * 5
    assert sentences(values)[-1] == (
        "Each method lacks a value of deletion for 5 of 30 images, so the means describe the other images only."
    )


@pytest.mark.parametrize(("count", "start"), [(1, "Only 1 image was"), (2, "Only 2 images were"), (9, "Only 9")])
def test_few_images_are_too_few(count: int, start: str) -> None:
    (one,) = sentences(means(count=count, spread=0.001, deletion=(0.1, 0.9)))
    assert one.startswith(start)
    assert one.endswith(" measured, too few for claims about the methods. Evaluate at least 10 images.")
    assert not metric_results(case(means(count=count, deletion=(0.1, 0.9))).summary())["deletion"].better


def test_many_crops_of_few_images_are_too_few() -> None:
    values = means(count=40, deletion=(0.1, 0.9))
    assert sentences(values, clusters=[str(i // 10) for i in range(40)]) == [
        "The 40 measured images form only 4 clusters, too few for claims about the methods. Evaluate at least 10 "
        "independent images."
    ]
    assert "only 1 cluster," in sentences(values, clusters=["a"] * 40)[0]


def test_many_methods_need_more_images() -> None:
    # 171 pairs need 13 images, for which the smallest p of the test is 2 / 8192.
    values = {"deletion": {f"m{i}": around(i, 12, 0.01, i) for i in range(19)}}
    assert sentences(values) == [
        "Only 12 images were measured, too few for claims about the methods. Evaluate at least 13 images."
    ]
    values["completeness"] = {name: values["deletion"][name] for name in ("m0", "m1")}
    found = sentences(values)
    assert found[0] == (
        "12 images are too few for a clear difference between so many methods by deletion. Evaluate at least 13 images."
    )
    assert "By completeness, m0 is clearly the best of the 2 methods that have values." in found


def test_without_values_nothing_is_claimed() -> None:
    values = {"deletion": {"layercam": ["constant"] * 20, "gradcam": ["constant"] * 20}}
    assert sentences(values) == [
        "No metric of faithfulness or localisation compares the methods, so none is recommended.",
        "LayerCAM and Grad-CAM each lack a value of deletion for every image.",
    ]


def test_equal_methods_never_win() -> None:
    values = np.random.default_rng(3).normal(size=(40, 3))
    by_method = dict(zip(TITLES, values.T.tolist(), strict=False))
    assert "no clear difference" in sentences({"deletion": by_method})[0]


def test_sentences_are_sentences() -> None:
    found = typical_summary()["recommendation"]
    assert len(found) > 5
    assert all(re.fullmatch(r"[A-Z][^.]*(\.\d[^.]*)?\.", one) and "  " not in one for one in found)
