"""Results files of benchmarks that are measured one case at a time: the machine, and the results of each case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.shared import json_files
from benchmarks.shared.machine_facts import kind_text, same_kind


def add_case(path: Path, machine: Mapping[str, Any], name: str, case: Mapping[str, Any]) -> None:
    """Add or replace the results of one case, so that an interrupted benchmark keeps the others.

    Raises:
        SystemExit: If another kind of machine measured the file.
    """
    refuse_other_machine(path, machine)
    data = json_files.read(path)
    json_files.write(path, {**data, "machine": machine, "cases": {**data.get("cases", {}), name: case}})


def refuse_other_machine(path: Path, machine: Mapping[str, Any]) -> None:
    """Raise SystemExit if another kind of machine measured the file: times of two machines cannot be compared."""
    data = json_files.read(path)
    if data and not same_kind(data["machine"], machine):
        raise SystemExit(
            f"{path}: measured on {kind_text(data['machine'])}, and this machine is {kind_text(machine)}; "
            f"choose another file or delete this one"
        )


def cases_of(path: Path, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of all cases by name; empty if the file is missing or another kind of machine measured it."""
    data = json_files.read(path)
    return data["cases"] if data and same_kind(data["machine"], machine) else {}
