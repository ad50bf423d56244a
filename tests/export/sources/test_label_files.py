"""Tests of `seewhy_export.sources.label_files`: every form of label file, and errors for invalid ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import ExportError
from seewhy_export.sources.label_files import load_labels
from support.exporting.timed_process import in_time


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\r\ndog", ("cat", "dog")),
        ("\ufeffcat\ndog\n\n\n", ("cat", "dog")),
        ("  Katze \nHündin\n", ("Katze", "Hündin")),
        ("crane\ncrane\n", ("crane", "crane")),
        ("[UNK]\n{dog}\n", ("[UNK]", "{dog}")),
        ("a\u2028b\x0cc\nd\n", ("a\u2028b\x0cc", "d")),
        ('["cat", "dog"]', ("cat", "dog")),
    ],
)
def test_text(text: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode("utf-8"))
    assert load_labels(tmp_path / "labels.txt") == labels


@pytest.mark.parametrize(
    "data",
    [
        ["cat", "dog"],
        {"0": "cat", "1": "dog"},
        {"1": "dog", "0": "cat"},
        {"0": ["n02123045", "cat"], "1": ["n02084071", "dog"]},
        [["n02123045", "cat"], ["n02084071", "dog"]],
        {"dog": 1, "cat": 0},
        {"id2label": {"0": "cat", "1": "dog"}, "model_type": "resnet"},
    ],
)
def test_json(data: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(data))
    assert load_labels(tmp_path / "labels.json") == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no labels"),
        ("a.txt", b"\n\n", "holds no labels"),
        ("a.txt", b"cat\n\ndog\n", "line 2 is blank; write one label per line"),
        ("a.txt", b"cat\nH\xfcndin\n", "a.txt, line 2: is not UTF-8"),
        ("a.json", b"[]", "holds no labels"),
        ("a.json", b"{}", "must be a list of labels, or an object"),
        ("a.json", b'"cat"', "must be a list of labels, or an object"),
        ("a.json", b'["cat"', "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "index 1 is missing; 2 labels are numbered 0 to 1"),
        ("a.json", b'{"1": "cat", "2": "dog"}', "index 0 is missing"),
        ("a.json", b'{"0": "cat", "00": "dog"}', "index 0 occurs twice"),
        ("a.json", b'{"0": "cat", "0": "dog"}', "'0' is given twice"),
        ("a.json", b'{"cat": 0, "dog": 0}', "index 0 occurs twice"),
        ("a.json", b'{"cat": 0, "dog": -1}', "index 1 is missing"),
        ("a.json", b'{"cat": 0, "dog": "1"}', "'cat' is not a class index"),
        ("a.json", b'["cat", 5]', "label 1 must be a string with text, not 5"),
        ("a.json", b'["cat", ""]', 'label 1 must be a string with text, not ""'),
        ("a.txt", b"cat\n" + b"x" * 8193, 'a.txt: label 1: expected a string of at most 8192 bytes, not "xxx'),
        ("a.txt", b"cat\n" + "ü".encode() * 4097, "a.txt: label 1: expected a string of at most 8192 bytes"),
        ("a.json", b'["' + b"x" * 8193 + b'", "cat"]', "a.json: label 0: expected a string of at most 8192 bytes"),
        ("a.json", b'["cat", null]', "label 1 must be a string with text, not null"),
        ("a.json", b'["cat", "\\ud800"]', "label 1 must be valid Unicode, not "),
    ],
)
def test_refused_in_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=message) as caught:
        load_labels(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="missing.txt: cannot be read: No such file"):
        load_labels(tmp_path / "missing.txt")
    (tmp_path / "large.txt").write_bytes(b"x" * (16 * 2**20 + 1))
    with pytest.raises(ExportError, match="must have at most 16 MiB"):
        load_labels(tmp_path / "large.txt")


def test_files_that_are_not_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    refused = in_time(REFUSED, tmp_path / "pipe.txt", tmp_path / "zero.txt", tmp_path)
    assert refused[0] == f"{tmp_path}/pipe.txt: cannot be read: it is a pipe, not a regular file"
    assert refused[1] == f"{tmp_path}/zero.txt: cannot be read: it is a device, not a regular file"
    assert refused[2] == f"{tmp_path}: cannot be read: it is a folder, not a file"


REFUSED = """
import sys
from pathlib import Path
from seewhy.errors import ExportError
from seewhy_export.sources.label_files import load_labels
for path in sys.argv[1:]:
    try:
        load_labels(Path(path))
    except ExportError as error:
        print(error)
"""
