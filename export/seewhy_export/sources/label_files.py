"""Read class labels from a text file or a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seewhy._shared.regular_files import open_regular
from seewhy.contract import json_values
from seewhy.errors import ExportError

_LARGEST = 16 * 2**20
"""Largest size of a label file in bytes. The 21,843 labels of ImageNet-21k need a twentieth of it."""


def load_labels(path: Path) -> tuple[str, ...]:
    """Read one label per class, in the order of the class indices.

    A text file in UTF-8 holds one label per line. A JSON file holds one of these:

    - a list of labels;
    - an object that maps indices to labels, `{"0": "cat"}`;
    - an object like ImageNet's, `{"0": ["n01440764", "tench"]}`, in which the last element is the label;
    - an object that maps labels to indices, `{"cat": 0}`;
    - an object with one of these under the key `id2label`.

    Args:
        path: The label file.

    Returns:
        One label for each class.

    Raises:
        ExportError: If the file cannot be read, an index is missing, repeated or not an index, or a label is too long.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise ExportError(f"{path}: must have at most {_LARGEST >> 20} MiB; is this a label file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ExportError(f"{path}, line {line}: is not UTF-8; save the labels in that encoding") from error
    try:
        labels = _from_json(path, text) if _is_json(path, text) else _from_lines(text)
        return tuple(_validated(label, index) for index, label in enumerate(labels))
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error


def _is_json(path: Path, text: str) -> bool:
    """Return True if the file's name or its content is JSON."""
    if path.suffix.lower() == ".json":
        return True
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_lines(text: str) -> list[str]:
    """Return the labels of a text file."""
    # splitlines() would also split at form feeds and other characters.
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError("holds no labels")
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is blank; write one label per line")
    return lines


def _from_json(path: Path, text: str) -> list[Any]:
    """Return the labels of a JSON file, not yet validated."""
    try:
        data = json.loads(text, object_pairs_hook=json_values.object_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if isinstance(data, dict) and "id2label" in data:
        data = data["id2label"]
    if isinstance(data, list):
        if not data:
            raise ValueError("holds no labels")
        return data
    if not isinstance(data, dict) or not data:
        raise ValueError("must be a list of labels, or an object that maps indices to labels or labels to indices")
    return _from_mapping(data)


def labels_by_index(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return labels in the order of their indices.

    Args:
        data: Mapping from indices, as digits, to labels, or from labels to indices.

    Returns:
        One label for each class.

    Raises:
        ValueError: If an index is missing, repeated or not an index, or a label is not allowed in a model file.
    """
    if not data:
        raise ValueError("holds no labels")
    return tuple(_validated(label, index) for index, label in enumerate(_from_mapping(data)))


def _from_mapping(data: Mapping[str, Any]) -> list[Any]:
    """Return the labels of a mapping in the order of their indices, not yet validated."""
    if all(_is_index(value) for value in data.values()):
        return _in_order([(value, key) for key, value in data.items()])
    wrong = next((key for key in data if not re.fullmatch(r"[0-9]{1,9}", key)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:60]!r} is not a class index, and not all values are")
    return _in_order([(int(key), value) for key, value in data.items()])


def _is_index(value: Any) -> bool:
    """Return True if the value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def _in_order(indexed: list[tuple[int, Any]]) -> list[Any]:
    """Return the labels sorted by their indices, which must be 0, 1, 2 and so on."""
    found: dict[int, Any] = {}
    for index, label in indexed:
        if index in found:
            raise ValueError(f"index {index} occurs twice")
        found[index] = label
    missing = next((index for index in range(len(found)) if index not in found), None)
    if missing is not None:
        raise ValueError(f"index {missing} is missing; {len(found)} labels are numbered 0 to {len(found) - 1}")
    return [found[index] for index in range(len(found))]


def _validated(label: Any, index: int) -> str:
    """Return the label without surrounding blanks if a model file may hold it."""
    if isinstance(label, list) and label:
        label = label[-1]
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label {index} must be a string with text, not {json.dumps(label, default=repr)[:60]}")
    try:
        label.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"label {index} must be valid Unicode, not {ascii(label)[:60]}") from None
    label = label.strip()
    try:
        json_values.text(label)
    except ValueError as error:
        raise ValueError(f"label {index}: {error}") from None
    return str(label)
