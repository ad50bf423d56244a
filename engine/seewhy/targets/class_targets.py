"""Resolve targets: from class indices and labels as a user writes them to class indices."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.contract.constants import PREDICTED
from seewhy.errors import TargetError

Target: TypeAlias = int | str
"""A class index or a label."""

_SHOWN = 5


def read_target(text: str) -> Target:
    """What a user wrote as target: digits are a class index, all else a label."""
    digits = text.removeprefix("-")
    # Python refuses to read integers of thousands of digits; no label or index is that long.
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else text


def resolve_targets(target: Any, images: int, class_count: int, labels: Sequence[str] | None) -> Integers:
    """Return (N,) or (N,K) class indices for N `images`; `constants.PREDICTED` stands for the predicted class.

    `target` is None (the predicted class), an index, a label, a flat list of N of these (one per image), or a nested
    list or (N,K) array (K per image).

    Raises:
        TargetError: an index out of range, an unknown or ambiguous label, the wrong number, or a ragged list.
    """
    each = target if isinstance(target, (list, tuple)) else [target]
    if any(isinstance(one, np.ma.MaskedArray) for one in each):
        raise TargetError("targets are a masked array; give its values with those that are masked filled in")
    if isinstance(target, np.ndarray):
        target = target.tolist()
    if not isinstance(target, (list, tuple)):
        return np.full(images, _index(target, class_count, labels), np.int64)
    if len(target) != images:
        raise TargetError(
            f"{len(target)} targets for {images} images; give one for each image, or for several classes of an image "
            f"a list of lists"
        )
    target = [row.tolist() if isinstance(row, np.ndarray) else row for row in target]
    rows = [isinstance(row, (list, tuple)) for row in target]
    if not any(rows):
        return np.array([_index(value, class_count, labels) for value in target], np.int64)
    lengths = [len(row) if nested else 1 for row, nested in zip(target, rows, strict=True)]
    if not all(rows) or len(set(lengths)) > 1:
        raise TargetError(f"every image needs the same number of targets, not {_list(lengths)}")
    if lengths[0] == 0:
        raise TargetError("the lists of targets are empty; give at least one class for each image")
    return np.array([[_index(value, class_count, labels) for value in row] for row in target], np.int64)


def top_classes(logits: Floats, count: int) -> Integers:
    """(N,classes) -> (N,count): the classes with the highest logits, best first; ties go to the lower index."""
    order = np.argsort(-logits, axis=1, kind="stable")
    return order[:, :count].astype(np.int64)


def validate_top(top: Any, class_count: int) -> int:
    """Return `top` as an int.

    Raises:
        TargetError: it is not an integer from 1 to `class_count`.
    """
    if not is_integer(top) or not 1 <= top <= class_count:
        raise TargetError(f"top must be an integer from 1 to {class_count}, not {brief(top)}")
    return int(top)


def _index(value: Any, class_count: int, labels: Sequence[str] | None) -> int:
    if value is None:
        return PREDICTED
    if isinstance(value, str):
        return find_label(value, labels)
    if not is_integer(value):
        raise TargetError(f"a target is a class index or a label, not {brief(value)} ({type(value).__name__})")
    if not 0 <= value < class_count:
        raise TargetError(f"target {value} is out of range: the model has classes 0 to {class_count - 1}")
    return int(value)


def find_label(text: str, labels: Sequence[str] | None) -> int:
    """Return the index of the class called `text`.

    Tried in turn: the label as written, without regard to case, and one of its comma-separated synonyms ("tabby" for
    "tabby, tabby cat"). The first of these that finds a class decides.

    Raises:
        TargetError: no such label, or more than one.
    """
    if labels is None:
        raise TargetError(f"target {text!r}: the model file holds no labels; give a class index")
    wanted = text.strip().casefold()
    tests = (
        lambda label: label == text,
        lambda label: label.strip().casefold() == wanted,
        lambda label: wanted in _synonyms(label),
    )
    for test in tests:
        found = [index for index, label in enumerate(labels) if test(label)]
        if len(found) == 1:
            return found[0]
        if found:
            raise TargetError(f"label {text!r} is ambiguous: classes {_list(found)}; give the index")
    names = {name: label for label in labels for name in (*_synonyms(label), label.casefold())}
    close = dict.fromkeys(names[name] for name in difflib.get_close_matches(wanted, names, n=_SHOWN, cutoff=0.6))
    close.update(dict.fromkeys(label for label in labels if wanted and wanted in label.casefold()))
    hint = f"; close: {', '.join(list(close)[:_SHOWN])}" if close else ""
    raise TargetError(f"no label {text!r} among the model's {len(labels)} classes{hint}")


def _synonyms(label: str) -> list[str]:
    return [part.strip().casefold() for part in label.split(",")]


def _list(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:_SHOWN]))
    return shown + (", ..." if len(values) > _SHOWN else "")
