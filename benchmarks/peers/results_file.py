"""Results file of the comparison, written after every group, so that an interrupted comparison can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.shared.json_files import read, write
from benchmarks.shared.machine_facts import kind_text, same_kind

SOURCES, MACHINE, PACKAGES = "sources", "machine", "packages"


class OtherConditions(Exception):
    """The file has results that were measured under other conditions; the message names the difference."""


class Results:
    """Records of all groups, stored in a JSON file."""

    def __init__(self, path: Path, conditions: Mapping[str, Any], keep: bool, earlier: bool = False) -> None:
        """Read the file, or start a new one.

        Args:
            path: Path of the JSON file.
            conditions: Conditions that all results in a file share: machine, threads, versions and SeeWhy's sources.
            keep: True to keep the records of an existing file.
            earlier: True to keep records of other sources and packages until they are measured again. Each record
                names its sources.

        Raises:
            OtherConditions: If the file was measured on another kind of machine, or `keep` is set and the file has
                other conditions.
        """
        self._path = path
        old = read(path)
        if old and MACHINE in conditions and not same_kind(old[MACHINE], conditions[MACHINE]):
            raise OtherConditions(
                f"{path}: measured on {kind_text(old[MACHINE])}, and this machine is "
                f"{kind_text(conditions[MACHINE])}; choose another file with --results"
            )
        for key, value in conditions.items():
            may_differ = not keep or key == MACHINE or (earlier and key in (SOURCES, PACKAGES))
            if old and not may_differ and old[key] != json.loads(json.dumps(value)):
                raise OtherConditions(
                    f"{path}: its {key} is {old[key]}, and now it is {value}; measure without --missing"
                )
        records = old.get("records", {}) if keep else {}
        for record in records.values():
            record.setdefault(SOURCES, old[SOURCES])
        self._data: dict[str, Any] = {**conditions, "records": records}

    def has(self, key: str) -> bool:
        """Return True if the group was measured with the current sources."""
        record = self._data["records"].get(key)
        return record is not None and record[SOURCES] == self._data[SOURCES]

    def rivals(self, key: str) -> dict[str, Any]:
        """Return the records of the tools of a group by name; empty if the group was not measured."""
        return dict(self._data["records"].get(key, {}).get("rivals", {}))

    def replace(self, key: str, rival: str, record: Mapping[str, Any]) -> None:
        """Replace the record of one tool that was measured separately from its group."""
        group = self._data["records"][key]
        self.add(key, {**group, "rivals": {**group["rivals"], rival: record}})

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Add or replace the record of a group and write the file."""
        self._data["records"][key] = {**record, SOURCES: self._data[SOURCES]}
        write(self._path, self._data)


def key(question: str, model: str, batch: int) -> str:
    """Return the key of a group in the file."""
    return f"{question}/{model}/{batch}"
