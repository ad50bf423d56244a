"""Resolve targets, which a user gives as class indices or labels, to class indices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.checks import is_integer
from seewhy._shared.suggestions import did_you_mean_one_of
from seewhy._shared.text import brief, short
from seewhy.contract.constants import PREDICTED
from seewhy.errors import TargetError

Target: TypeAlias = int | str
"""A class index or a label."""

_MAX_SHOWN = 5
"""Maximum number of classes in one message."""
_FEW = 10
"""Number of labels up to which an error lists them all."""


@dataclass(frozen=True)
class TargetRequest:
    """The classes to explain for N images."""

    indices: Integers | None
    """Class indices, int64 of shape (N, K); `constants.PREDICTED` stands for the predicted class. None means the K
    classes with the highest logits, best first."""
    per_image: int
    """K, the number of classes for each image."""
    nested: bool
    """True if results have an axis for the classes. Without it, K is 1."""


def resolve_request(
    target: Any, top: Any, images: int, class_count: int, labels: Sequence[str] | None
) -> TargetRequest:
    """Resolve the arguments `target` and `top` of `Explainer.explain`.

    Args:
        target: None (the predicted class), a class index, a label, a list of N of these, or a nested list or (N, K)
            array for K classes of each image.
        top: Number of classes with the highest logits to explain instead, or None.
        images: N, the number of images.
        class_count: Number of classes of the model.
        labels: Labels of all classes, or None.

    Returns:
        The resolved targets.

    Raises:
        TargetError: If both `target` and `top` are given, or one of them is not valid.
    """
    if top is not None:
        if target is not None:
            raise TargetError(f"give target or top, not both (target={brief(target)}, top={brief(top)})")
        return TargetRequest(None, validate_top(top, class_count), True)
    if target is None:
        return TargetRequest(np.full((images, 1), PREDICTED, np.int64), 1, False)
    indices = resolve_targets(target, images, class_count, labels)
    nested = indices.ndim == 2
    return TargetRequest(indices if nested else indices[:, None], indices.shape[1] if nested else 1, nested)


def read_target(text: str) -> Target:
    """Return the target that a text stands for: digits are a class index, everything else is a label."""
    digits = text.removeprefix("-")
    # Python refuses to read integers of thousands of digits. No label or index is that long.
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else text


def resolve_targets(target: Any, images: int, class_count: int, labels: Sequence[str] | None) -> Integers:
    """Resolve targets to class indices.

    Args:
        target: None (the predicted class), an index, a label, a flat list of N of these (one for each image), or a
            nested list or (N, K) array (K for each image). A text of digits is an index.
        images: N, the number of images.
        class_count: Number of classes of the model.
        labels: Labels of all classes, or None.

    Returns:
        Class indices, int64 of shape (N,) or (N, K); `constants.PREDICTED` stands for the predicted class.

    Raises:
        TargetError: If an index is out of range, a label is unknown or ambiguous, or the number of targets is wrong.
    """
    values = target if isinstance(target, (list, tuple)) else [target]
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if arrays and any(isinstance(value, np.ma.MaskedArray) for value in arrays):
        raise TargetError("targets must not be a masked array; call its filled() method first")
    if isinstance(target, np.ndarray):
        target = target.tolist()
    if not isinstance(target, (list, tuple)):
        return np.full(images, _index(target, class_count, labels), np.int64)
    if len(target) != images:
        raise TargetError(
            f"{len(target)} targets are given for {images} images; give one target for each image, or a list of lists "
            f"for several classes of each image"
        )
    if arrays:
        target = [row.tolist() if isinstance(row, np.ndarray) else row for row in target]
    is_nested = [isinstance(row, (list, tuple)) for row in target]
    if True not in is_nested:
        return np.array([_index(value, class_count, labels) for value in target], np.int64)
    lengths = [len(row) if nested else 1 for row, nested in zip(target, is_nested, strict=True)]
    if not all(is_nested) or len(set(lengths)) > 1:
        raise TargetError(f"every image needs the same number of targets, not {_list(lengths)}")
    if lengths[0] == 0:
        raise TargetError("the lists of targets are empty; give at least one class for each image")
    return np.array([[_index(value, class_count, labels) for value in row] for row in target], np.int64)


def top_classes(logits: Floats, count: int) -> Integers:
    """Return the classes with the highest logits, best first; of equal logits the lower index comes first.

    Args:
        logits: Logits, float32 of shape (N, classes).
        count: K, the number of classes to return for each image.

    Returns:
        Class indices, int64 of shape (N, K).
    """
    if count == 1:
        best: Integers = logits.argmax(axis=1)[:, None]
        return best
    # Sort only the candidates, because sorting a thousand logits takes five times as long as finding these.
    negated = -logits
    last = np.partition(negated, count - 1, axis=1)[:, count - 1]
    best = np.empty((len(logits), count), np.int64)
    for row, values in enumerate(negated):
        candidates = np.flatnonzero(~(values > last[row]))  # NaN, which is greater than no number, is sorted last
        best[row] = candidates[np.argsort(values[candidates], kind="stable")[:count]]
    return best


def validate_top(top: Any, class_count: int) -> int:
    """Return `top` as an int.

    Args:
        top: Number of classes to explain.
        class_count: Number of classes of the model.

    Returns:
        The number.

    Raises:
        TargetError: If it is not an integer from 1 to `class_count`.
    """
    if not is_integer(top) or not 1 <= top <= class_count:
        raise TargetError(f"top must be an integer from 1 to {class_count}, not {brief(top)}")
    return int(top)


def _index(value: Any, class_count: int, labels: Sequence[str] | None) -> int:
    if value is None:
        return PREDICTED
    if isinstance(value, str):
        value = read_target(value)
    if isinstance(value, str):
        return find_label(value, labels)
    if not is_integer(value):
        raise TargetError(f"a target must be a class index or a label, not {brief(value)} ({type(value).__name__})")
    if not 0 <= value < class_count:
        raise TargetError(f"target {value} is out of range: the model has classes 0 to {class_count - 1}")
    return int(value)


def find_label(text: str, labels: Sequence[str] | None) -> int:
    """Return the index of the class with a label.

    Labels are compared exactly, then ignoring case, then with each of their comma-separated synonyms ("tabby" matches
    "tabby, tabby cat"). The first of these comparisons that matches a class decides.

    Args:
        text: The label.
        labels: Labels of all classes, or None.

    Returns:
        Index of the class.

    Raises:
        TargetError: If no class or several classes match, or the model file holds no labels.
    """
    if labels is None:
        raise TargetError(f"target {text!r} is a label, but the model file holds no labels; give a class index")
    found = classes_with_label(text, labels)
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetError(f"label {text!r} is ambiguous: classes {_list(found)} have it; give the class index")
    hint = did_you_mean_one_of(_close_labels(text.strip().casefold(), labels))
    if not hint and len(labels) <= _FEW:
        hint = f" The labels are {'; '.join(map(short, labels))}."
    raise TargetError(f"Unknown label {text!r} among {len(labels)} classes.{hint}")


def classes_with_label(text: str, labels: Sequence[str]) -> list[int]:
    """Return the indices of all classes with a label, compared as in `find_label`.

    Args:
        text: The label.
        labels: Labels of all classes.

    Returns:
        Ascending indices; empty if no class has the label.
    """
    plain = text.strip().casefold()
    comparisons = (
        lambda label: label == text,
        lambda label: label.strip().casefold() == plain,
        lambda label: plain in _synonyms(label),
    )
    each = ([index for index, label in enumerate(labels) if matches(label)] for matches in comparisons)
    return next(filter(None, each), [])


def _close_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return labels close to a text: first those that contain it as a word, then as a substring, then similar ones."""
    if not text:
        return []
    word = re.compile(rf"\b{re.escape(text)}\b")
    names = {name: label for label in labels for name in (*_synonyms(label), label.casefold())}
    import difflib  # only for messages of errors

    similar = difflib.get_close_matches(text, names, n=_MAX_SHOWN, cutoff=0.6)
    found = [
        *(label for label in labels if word.search(label.casefold())),
        *(label for label in labels if text in label.casefold()),
        *(names[name] for name in similar),
    ]
    return list(dict.fromkeys(found))[:_MAX_SHOWN]


def _synonyms(label: str) -> list[str]:
    return [part.strip().casefold() for part in label.split(",")]


def _list(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:_MAX_SHOWN]))
    return shown + (", ..." if len(values) > _MAX_SHOWN else "")
