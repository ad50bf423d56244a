"""Tests of `seewhy.targets.class_targets`: indices and labels, one or several for each image, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy import TargetError
from seewhy.targets.class_targets import find_label, resolve_targets, top_classes, validate_top
from support.tiny_model import LABELS


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [-1, -1]),
        (3, [3, 3]),
        (np.int32(3), [3, 3]),
        ("espresso", [1, 1]),
        ([0, 5], [0, 5]),
        ((0, None), [0, -1]),
        (["moped", 2], [3, 2]),
        (np.array([4, 1]), [4, 1]),
        ([[0], [1]], [[0], [1]]),
        ([[0, "moped", None], (1, 1, 1)], [[0, 3, -1], [1, 1, 1]]),
        (np.array([[0, 1], [2, 3]], np.uint8), [[0, 1], [2, 3]]),
        ([np.array([0, 1]), [2, 3]], [[0, 1], [2, 3]]),
        (np.array(3), [3, 3]),
        ([np.array(1), np.array(2)], [1, 2]),
        ([[np.int64(1)], [np.uint8(2)]], [[1], [2]]),
    ],
)
def test_forms_of_targets_are_resolved(target: Any, expected: list[Any]) -> None:
    found = resolve_targets(target, 2, 6, LABELS)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (6, "target 6 is out of range: the model has classes 0 to 5"),
        (-1, "target -1 is out of range: the model has classes 0 to 5"),
        (10**30, "out of range"),
        ([0, 6], "target 6 is out of range"),
        ([[0, 1], [2, 99]], "target 99 is out of range"),
        (True, "not True"),
        ([0, False], "not False"),
        (1.0, "not 1.0"),
        (np.array([0.0, 1.0]), "not 0.0"),
        (np.array([True, False]), "not True"),
        ({0: 1}, "a class index or a label"),
        ([0], "1 targets are given for 2 images"),
        ([0, 1, 2], "3 targets are given for 2 images; give one target for each image, or a list of lists"),
        ([], "0 targets are given for 2 images"),
        ([[0, 1], [2]], "the same number of targets, not 2, 1"),
        ([[0, 1], 2], "the same number of targets"),
        ([[0], 2], "the same number of targets"),
        ([[], []], "are empty"),
        ([[[0]], [[1]]], "a class index or a label"),
        ([[[0] * 99], [[1] * 99]], r"not list \(list\)"),
        (type("Odd", (), {"__repr__": lambda self: "a\nb"})(), r"not Odd \(Odd\)"),
        ([np.zeros(()), np.zeros(())], "not 0.0"),
        (np.zeros((2, 1, 1), int), "a class index or a label"),
    ],
)
def test_wrong_targets_are_refused(target: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words) as raised:
        resolve_targets(target, 2, 6, LABELS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tabby, tabby cat", 0),
        ("TABBY, Tabby Cat", 0),
        ("tabby", 0),
        ("Tabby cat", 0),
        (" espresso ", 1),
        ("tiger cat", 5),
    ],
)
def test_labels(text: str, index: int) -> None:
    assert find_label(text, LABELS) == index


def test_an_exact_label_comes_first() -> None:
    labels = ("Crane", "crane", "crane, bird")
    assert [find_label(text, labels) for text in ("Crane", "crane", "bird")] == [0, 1, 2]
    with pytest.raises(TargetError, match="label 'CRANE' is ambiguous: classes 0, 1 have it; give the class index"):
        find_label("CRANE", labels)


def test_an_unknown_label_lists_similar_ones() -> None:
    with pytest.raises(TargetError, match="Unknown label 'expresso' among 6 classes. Did you mean 'espresso'.$"):
        find_label("expresso", LABELS)
    with pytest.raises(TargetError, match="Did you mean 'tabby, tabby cat'.*'Tiger cat'"):
        find_label("cat", LABELS)
    with pytest.raises(TargetError, match="'zzzzzz' among 6 classes. The labels are tabby, tabby cat; espresso;"):
        find_label("zzzzzz", LABELS)
    with pytest.raises(TargetError, match="Unknown label 'zzzzzz' among 11 classes.$"):
        find_label("zzzzzz", [f"class {index}" for index in range(11)])
    with pytest.raises(TargetError, match="Unknown label ''"):
        find_label("", LABELS)


def test_ambiguous_label() -> None:
    with pytest.raises(TargetError, match="label 'crane' is ambiguous: classes 2, 4"):
        find_label("crane", LABELS)


def test_no_labels() -> None:
    with pytest.raises(
        TargetError, match="target 'cat' is a label, but the model file holds no labels; give a class index"
    ):
        resolve_targets("cat", 1, 6, None)


def test_top_classes_come_in_order() -> None:
    logits = np.array([[1, 3, 2], [5, 5, 5], [-1, -3, 0]], np.float32)
    assert top_classes(logits, 2).tolist() == [[1, 2], [0, 1], [2, 0]]


@pytest.mark.parametrize("values", [1, 2, 7])
def test_ties_among_many_classes(values: int) -> None:
    """An unstable sort keeps the order of few equal values by chance, but not of a thousand."""
    logits = np.random.default_rng(0).integers(0, values, (2, 1000)).astype(np.float32)
    for row, found in zip(logits.tolist(), top_classes(logits, 1000).tolist(), strict=True):
        assert found == sorted(range(1000), key=lambda index: (-row[index], index))


@pytest.mark.parametrize("top", [0, -1, 7, 1.0, True, "2"])
def test_wrong_top(top: Any) -> None:
    with pytest.raises(TargetError, match="top must be an integer from 1 to 6"):
        validate_top(top, 6)
    assert validate_top(np.int64(6), 6) == 6
