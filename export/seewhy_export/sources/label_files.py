"""Class names from a file of the user's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from seewhy._shared.regular_files import open_regular
from seewhy.contract import json_values
from seewhy.errors import ExportError

_LARGEST = 16 * 2**20
"""Bytes. The 21,843 names of ImageNet take a twentieth of it."""


def load_labels(path: Path) -> tuple[str, ...]:
    """Read one name for each class, in order.

    Text in UTF-8 holds one a line. JSON is a list of names, an object of indices to names (`{"0": "cat"}`), ImageNet's
    `{"0": ["n01440764", "tench"]}`, whose last part is the name, an object of names to indices (`{"cat": 0}`), or an
    object with one of these as `id2label`.

    Raises:
        ExportError: the file cannot be read, an index is missing, there twice or none, or a label is too long.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise ExportError(f"{path}: more than {_LARGEST >> 20} MiB; a list of labels is smaller")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ExportError(f"{path}, line {line}: not UTF-8; save the labels in that encoding") from error
    try:
        labels = _from_json(path, text) if _is_json(path, text) else _from_lines(text)
        return tuple(_checked(label, index) for index, label in enumerate(labels))
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error


def _is_json(path: Path, text: str) -> bool:
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
    # Not splitlines(), for which a form feed and others end a line too.
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError("holds no labels")
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is blank; one label a line is needed")
    return lines


def _from_json(path: Path, text: str) -> list[Any]:
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
        raise ValueError("a list of labels, or an object of indices to labels or of labels to indices, is needed")
    if all(_is_index(value) for value in data.values()):
        return _in_order([(value, key) for key, value in data.items()])
    wrong = next((key for key in data if not re.fullmatch(r"[0-9]{1,9}", key)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:60]!r} is no class index, and not all values are")
    return _in_order([(int(key), value) for key, value in data.items()])


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _in_order(indexed: list[tuple[int, Any]]) -> list[Any]:
    found: dict[int, Any] = {}
    for index, label in indexed:
        if index in found:
            raise ValueError(f"index {index} stands there twice")
        found[index] = label
    missing = next((index for index in range(len(found)) if index not in found), None)
    if missing is not None:
        raise ValueError(f"index {missing} is missing; {len(found)} labels are numbered 0 to {len(found) - 1}")
    return [found[index] for index in range(len(found))]


def _checked(label: Any, index: int) -> str:
    if isinstance(label, list) and label:
        label = label[-1]
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label {index} is {json.dumps(label)[:60]}, not a name")
    try:
        label.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"label {index} is {ascii(label)[:60]}, which is no Unicode text") from None
    label = label.strip()
    try:
        json_values.text(label)
    except ValueError as error:
        raise ValueError(f"label {index}: {error}") from None
    return str(label)
