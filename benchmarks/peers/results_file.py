"""The file of results: written after every group, so that a run that was cut off can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.shared.json_files import read, write

SOURCES = "sources"


class OtherConditions(Exception):
    """The file holds figures that were measured on another machine, or otherwise; the message says what differs."""


class Results:
    """Read the file, or begin one."""

    def __init__(self, path: Path, conditions: Mapping[str, Any], keep: bool, earlier: bool = False) -> None:
        """`conditions` are what all figures in a file share: machine, threads, versions, and SeeWhy's sources.

        With `earlier`, figures of other sources are kept too, until they are measured again; each says which.

        Raises:
            OtherConditions: `keep`, and the file's conditions are others.
        """
        self._path = path
        old = read(path) if keep else {}
        for key, value in conditions.items():
            if old and old[key] != json.loads(json.dumps(value)) and not (earlier and key == SOURCES):
                raise OtherConditions(
                    f"{path}: its {key} is {old[key]}, and now it is {value}; measure without --missing"
                )
        records = old.get("records", {})
        for record in records.values():
            record.setdefault(SOURCES, old[SOURCES])
        self._data: dict[str, Any] = {**conditions, "records": records}

    def has(self, key: str) -> bool:
        """Whether there is a figure of the present sources."""
        record = self._data["records"].get(key)
        return record is not None and record[SOURCES] == self._data[SOURCES]

    def rivals(self, key: str) -> dict[str, Any]:
        """What each tool's record of a group holds; nothing where it was not measured."""
        return dict(self._data["records"].get(key, {}).get("rivals", {}))

    def replace(self, key: str, rival: str, record: Mapping[str, Any]) -> None:
        """One tool's record, measured apart from its group."""
        group = self._data["records"][key]
        self.add(key, {**group, "rivals": {**group["rivals"], rival: record}})

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        self._data["records"][key] = {**record, SOURCES: self._data[SOURCES]}
        write(self._path, self._data)


def key(question: str, model: str, batch: int) -> str:
    return f"{question}/{model}/{batch}"
