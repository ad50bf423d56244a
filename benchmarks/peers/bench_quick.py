"""Measure a few ratios in some minutes, and compare them with stored ones of the same CPU flags (`make bench-quick`).

    python benchmarks/peers/bench_quick.py            print the ratios, and name those that differ from the stored ones,
                                                      failed, or are stored and could not be measured
    python benchmarks/peers/bench_quick.py --store    store the ratios of this machine in benchmarks/results/quick.json

The script measures Grad-CAM of one image for two networks, a folder of eight images, and integrated gradients. It uses
the tools, networks and rounds of `compare_tools.py`. The first run installs the tools and exports the networks, which
takes several minutes more.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS
from benchmarks.peers import compare_tools, input_files
from benchmarks.peers.benchmark_questions import FLOOR, FORMS, GRADCAM, OURS, OURS_INT8, QUESTIONS, Question
from benchmarks.peers.tool_environments import EnvironmentFailure
from benchmarks.shared import json_files
from benchmarks.shared.machine_facts import describe
from benchmarks.shared.markdown_tables import table

FILE = RESULTS / "quick.json"
TOLERANCE = 0.15
"""Relative difference of a ratio from the stored one that is named. Repeated runs on a quiet machine differ by less."""
FOLDER, IMAGES = "few-photographs", 8


def questions() -> dict[str, Question]:
    """Return the questions of the comparison, restricted to a few networks and tools."""
    jpeg = f", {FORMS['jpeg']}"
    names = {FLOOR, *(f"{tool}{form}" for tool in (OURS, OURS_INT8, GRADCAM) for form in ("", jpeg))}
    few = {
        name: {"rivals": tuple(rival for rival in QUESTIONS[name].rivals if rival.name in names)}
        for name in ("gradcam", "folder")
    }
    gradcam = {**few["gradcam"], "models": ("resnet50", "mobilenet_v2"), "batches": (1,), "rounds": {1: 9}}
    folder = {**few["folder"], "models": ("mobilenet_v2",), "images": FOLDER, "count": IMAGES}
    return {
        "gradcam": dataclasses.replace(QUESTIONS["gradcam"], **gradcam),
        "folder": dataclasses.replace(QUESTIONS["folder"], **folder),
        "integrated-gradients": QUESTIONS["integrated-gradients"],
    }


def ratios(question: Question, model: str, record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the ratio of each tool to the baseline of the question, or None for a tool that failed."""
    base, field = (question.floor, "to_floor") if question.floor else (question.ours, "to_ours")
    return {
        f"{question.title}, {model}: {name} ÷ {base}": rival.get(field)
        for name, rival in record["rivals"].items()
        if name != base
    }


def measure() -> dict[str, float | None]:
    """Measure all ratios."""
    comparison = compare_tools.Comparison(compare_tools.arguments().parse_args([]))
    chosen = questions()
    comparison.install({rival.environment for question in chosen.values() for rival in question.rivals})
    input_files.write_inputs(comparison.inputs)
    (comparison.inputs / FOLDER).mkdir(exist_ok=True)
    for path in sorted((comparison.inputs / "photographs").iterdir())[:IMAGES]:
        shutil.copy(path, comparison.inputs / FOLDER)
    found: dict[str, float | None] = {}
    for name, question in chosen.items():
        for model in question.models:
            with comparison.started_tools(name, model, question, question.rivals) as tools:
                found |= ratios(question, model, comparison.measure_group(question, model, question.batches[0], tools))
    return found


def compare(found: Mapping[str, float | None], stored: Mapping[str, float]) -> tuple[str, list[str]]:
    """Return the table of the ratios, and the names of those that differ from the stored ones or were not measured."""
    rows, differing = [], []
    for name in dict.fromkeys([*found, *stored]):
        value, old = found.get(name), stored.get(name)
        change = None if value is None or old is None else value / old - 1
        if value is None or (change is not None and abs(change) > TOLERANCE):
            differing.append(name)
        rows.append(
            [
                name,
                f"{value:.2f}" if value is not None else "failed" if name in found else "not measured",
                "" if old is None else f"{old:.2f}",
                "" if change is None else f"{change:+.0%}",
            ]
        )
    return table(["ratio of times, median of the rounds", "now", "stored", "change"], rows), differing


def flags_of(machine: Mapping[str, Any]) -> str:
    """Return the number of cores and the CPU flags, by which ratios are stored."""
    return f"{machine['cores']} cores: {' '.join(machine['instructions'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="store the ratios of this machine")
    options = parser.parse_args()
    machine = describe()
    flags, all_stored = flags_of(machine), json_files.read(FILE)
    try:
        found = measure()
    except (EnvironmentFailure, RuntimeError) as error:
        raise SystemExit(f"bench-quick: {error}") from None
    printed, differing = compare(found, all_stored.get(flags, {}).get("ratios", {}))
    print(f"{machine['processor']}, {flags}\n\n{printed}")
    if options.store:
        kept = {name: round(value, 4) for name, value in found.items() if value is not None}
        json_files.write(FILE, {**all_stored, flags: {"machine": machine, "ratios": kept}})
        print(f"Stored {len(kept)} of {len(found)} ratios in {FILE}.")
    elif flags not in all_stored:
        print(
            f"Nothing was compared: {FILE} has no ratios for these cores and CPU flags. To measure again and store "
            f"them, run: {sys.executable} benchmarks/peers/bench_quick.py --store"
        )
    elif differing:
        print(f"Differ by more than {TOLERANCE:.0%}, failed or were not measured:")
        print("\n".join(f"- {name}" for name in differing))
    else:
        print(f"All stored ratios were measured again, and differ by at most {TOLERANCE:.0%}.")


if __name__ == "__main__":
    main()
