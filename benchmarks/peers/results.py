"""The file of results: written after every group, so that a run that was cut off can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class OtherConditions(Exception):
    """The file holds figures that were measured on another machine, or otherwise; the message says what differs."""


class Results:
    """Read the file, or begin one."""

    def __init__(self, path: Path, conditions: Mapping[str, Any], keep: bool) -> None:
        """`conditions` are what all figures in a file share: machine, threads, versions.

        Raises:
            OtherConditions: `keep`, and the file's conditions are others.
        """
        self._path = path
        old = read(path) if keep else {}
        for key, value in conditions.items():
            if old and old[key] != json.loads(json.dumps(value)):
                raise OtherConditions(
                    f"{path}: its {key} is {old[key]}, and now it is {value}; measure without --missing"
                )
        self._data: dict[str, Any] = {**conditions, "records": old.get("records", {})}

    def has(self, key: str) -> bool:
        return key in self._data["records"]

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        self._data["records"][key] = dict(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self._data, indent=1) + "\n")
        temporary.replace(self._path)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def key(question: str, model: str, batch: int) -> str:
    return f"{question}/{model}/{batch}"
