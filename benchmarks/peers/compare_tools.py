"""Compare the speed of SeeWhy with that of other tools on a CPU (`make bench`).

    python benchmarks/peers/compare_tools.py                          measure everything again and write the page
    python benchmarks/peers/compare_tools.py --missing                measure what benchmarks/results/peers.json lacks
    python benchmarks/peers/compare_tools.py --questions gradcam guided --models resnet50 --batches 1 8 --rounds 5
    python benchmarks/peers/compare_tools.py --prepare                install the tools and export the networks only
    python benchmarks/peers/compare_tools.py --aims --missing         measure what the aims and the chart need

Each tool runs in its own process and virtual environment. The tools of a question take turns, so that other load on the
machine affects them alike. The results file is written after every group, so an interrupted comparison continues with
`--missing`. A file holds results of one kind of machine: on another kind, choose another with `--results`. The page of
`peers-NAME.json` is `benchmarks-NAME.md`.

The script needs an interpreter with SeeWhy and its extras `demo`, `timm` and `dev`, as `make` installs them. The tools
are installed below the folder `.bench`, which takes several GiB and is reused.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS, ROOT
from benchmarks.peers import cold_start, input_files, results_file
from benchmarks.peers.benchmark_questions import ALL, COLD, DRIFT, QUESTIONS, ROUNDS, Question
from benchmarks.peers.measurement_rounds import Group, Rival, Tool, measure
from benchmarks.peers.page import performance_aims, write_page
from benchmarks.peers.tool_environments import ENVIRONMENTS, SEEWHY, EnvironmentFailure, Environments, sources_digest
from benchmarks.peers.worker_process import KILLED, Process, ToolFailure
from benchmarks.shared.machine_facts import available_cores, describe

FILE = RESULTS / "peers.json"
COLD_ROUNDS = 7


class Comparison:
    """One run of the comparison: options, environments, input files and measurements."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = options.folder.resolve()
        self.environments = Environments(self.folder / "environments", options.allow_gpu_libraries)
        self.inputs = self.folder / "models"
        self.missing_tools: dict[str, str] = {}
        self.sources = sources_digest()

    def install(self, names: Collection[str] = ENVIRONMENTS) -> None:
        """Install the environments of the tools; remember the tools that cannot be installed."""
        for name in names:
            start = time.monotonic()
            try:
                if self.environments.make(name):
                    log(f"installed {name} in {time.monotonic() - start:.0f} s")
            except EnvironmentFailure as failure:
                if name == SEEWHY:
                    raise
                self.missing_tools[name] = str(failure)
                log(f"not installed: {name}: {failure}")

    def conditions(self) -> dict[str, Any]:
        """Return the conditions that all measurements in one results file share."""
        packages = {name: self.environments.packages(name) for name in ENVIRONMENTS if name not in self.missing_tools}
        return {
            "machine": describe(),
            "threads": self.options.threads,
            "sources": self.sources,
            "packages": packages,
        }

    def run(self) -> None:
        """Measure all chosen groups, or only prepare them."""
        self.install()
        input_files.write_inputs(self.inputs)
        if self.options.prepare:
            for model in input_files.PREPARED:
                if any(model in self._models(name) for name in self.options.questions or ALL):
                    self._model_folder(model)
                    log(f"wrote the files of {model}")
            return
        options = self.options
        restricted = options.models or options.batches or options.questions or options.aims
        keep = bool(options.missing or options.keep_earlier or restricted)
        results = results_file.Results(options.results, self.conditions(), keep, options.keep_earlier)
        for name in options.questions or ALL:
            for model in self._models(name):
                start = time.monotonic()
                if name == COLD:
                    self._cold(results, model)
                elif name == DRIFT:
                    self._drift(results, model)
                else:
                    self._question(results, name, QUESTIONS[name], model)
                log(f"{name}, {model}: {time.monotonic() - start:.0f} s")

    def _models(self, question: str) -> list[str]:
        others = {COLD: cold_start.MODELS, DRIFT: input_files.LITE_MODELS}
        names = others[question] if question in others else QUESTIONS[question].models
        chosen = [name for name in names if name == "any" or not self.options.models or name in self.options.models]
        return [name for name in chosen if self._batches(question, name)]

    def _batches(self, question: str, model: str) -> list[int]:
        """Return the batch sizes to measure; `--aims` keeps those of the groups that an aim or the chart needs."""
        batches = QUESTIONS[question].batches if question in QUESTIONS else (1,)
        return [
            batch
            for batch in batches
            if not self.options.batches or batch in self.options.batches
            if not self.options.aims or results_file.key(question, model, batch) in performance_aims.needed_groups()
        ]

    def _must_measure(self, results: results_file.Results, key: str) -> bool:
        return not (self.options.missing and results.has(key))

    def _model_folder(self, model: str) -> Path:
        """Return the folder of the model, written by the exporter of the measured sources."""
        return self.inputs / model if model == "any" else input_files.prepare(self.inputs, model, self.sources)

    def _cold(self, results: results_file.Results, model: str) -> None:
        key = results_file.key(COLD, model, 1)
        if self._must_measure(results, key):
            rounds = self.options.rounds or COLD_ROUNDS
            results.add(
                key, cold_start.measure(self.environments, self._model_folder(model), self.options.threads, rounds)
            )

    def _drift(self, results: results_file.Results, model: str) -> None:
        key = results_file.key(DRIFT, model, 1)
        if self._must_measure(results, key):
            facts = json.loads((self._model_folder(model) / "facts.json").read_text())
            results.add(key, {"stored_drift": facts["drift"], "rivals": {}})

    def _question(self, results: results_file.Results, name: str, question: Question, model: str) -> None:
        batches = self._batches(name, model)
        missing = [batch for batch in batches if self._must_measure(results, results_file.key(name, model, batch))]
        if missing:
            rivals = [rival for rival in question.rivals if not (self.options.aims and rival.slow)]
            with self.started_tools(name, model, question, rivals) as tools:
                for batch in missing:
                    used_tools = [tool for tool in tools if tool.rival.tries(model, batch)]
                    results.add(
                        results_file.key(name, model, batch), self.measure_group(question, model, batch, used_tools)
                    )
        for batch in batches:
            self.measure_apart(results, name, question, model, batch)

    def measure_apart(
        self, results: results_file.Results, name: str, question: Question, model: str, batch: int
    ) -> None:
        """Measure tools that ran out of memory again, each with only SeeWhy and the baseline in memory."""
        key = results_file.key(name, model, batch)
        for rival in question.rivals:
            record = results.rivals(key).get(rival.name, {})
            if not record.get("failed", "").startswith(KILLED) or record.get("apart"):
                continue
            few_rivals = [
                other for other in question.rivals if other.name in (rival.name, question.ours, question.floor)
            ]
            with self.started_tools(name, model, question, few_rivals) as tools:
                group = self.measure_group(question, model, batch, tools)
            results.replace(key, rival.name, {**group["rivals"][rival.name], "apart": True})

    def measure_group(self, question: Question, model: str, batch: int, tools: Sequence[Tool]) -> dict[str, Any]:
        """Measure the tools for one question, model and batch size, and return the record."""
        model_folder = self._model_folder(model)
        rounds = self.options.rounds or (question.rounds or ROUNDS)[batch]
        with tempfile.TemporaryDirectory(prefix="bench-", dir=self.folder) as scratch:
            tasks = {
                tool.rival.name: {
                    "model": str(model_folder),
                    "batch": batch,
                    "threads": tool.rival.threads or self.options.threads,
                    "options": question.options(tool.rival, self.inputs, Path(scratch)),
                }
                for tool in tools
            }
            group = Group(tools, tasks, question.ours, question.floor, question.compare, Path(scratch))
            return measure(group, rounds, self.options.quiet)

    @contextlib.contextmanager
    def started_tools(self, name: str, model: str, question: Question, rivals: Sequence[Rival]) -> Iterator[list[Tool]]:
        """Start the processes of all tools and wait until each is ready; close them at the end."""
        tools = [
            self._start(name, rival)
            for rival in rivals
            if rival.environment not in self.missing_tools and any(rival.tries(model, b) for b in question.batches)
        ]
        try:
            for tool in tools:
                try:
                    tool.process.ready()
                except ToolFailure as failure:
                    tool.failure = str(failure)
            yield tools
        finally:
            for tool in tools:
                tool.process.close()

    def _start(self, name: str, rival: Rival) -> Tool:
        python = self.environments.python(rival.environment)
        log = self.folder / "logs" / f"{name}-{rival.name.replace(' ', '-')}.log"
        return Tool(rival, Process(python, rival.job, rival.threads or self.options.threads, log))


def log(text: str) -> None:
    """Print a line with the time of day."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def _resolved(name: str) -> Path:
    return Path(name).resolve()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--questions", nargs="+", choices=ALL, metavar="QUESTION", help=f"measure only these of {', '.join(ALL)}"
    )
    parser.add_argument(
        "--models", nargs="+", choices=input_files.PREPARED, metavar="MODEL", help="measure only these networks"
    )
    parser.add_argument("--batches", nargs="+", type=int, choices=(1, 8, 32), help="measure only these batch sizes")
    parser.add_argument(
        "--rounds", type=int, help="number of rounds for every group (default: fewer rounds for larger batches)"
    )
    parser.add_argument(
        "--aims", action="store_true", help="measure only the groups of the aims and the chart, without slow tools"
    )
    parser.add_argument("--missing", action="store_true", help="measure only what the results file lacks")
    parser.add_argument("--keep-earlier", action="store_true", help="keep and mark results of other commits")
    parser.add_argument(
        "--quiet", type=float, metavar="CORES", help="measure only while other programs use fewer cores than this"
    )
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="number of threads of each tool (default: all cores)"
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="folder for environments and models (default: .bench)"
    )
    parser.add_argument("--results", type=_resolved, default=FILE, help="JSON file for the results")
    parser.add_argument("--prepare", action="store_true", help="only install the tools and export the networks")
    parser.add_argument(
        "--allow-gpu-libraries", action="store_true", help="allow pip to install gigabytes of GPU libraries"
    )
    return parser


def main() -> None:
    options = arguments().parse_args()
    try:
        Comparison(options).run()
    except (EnvironmentFailure, results_file.OtherConditions, RuntimeError) as error:
        raise SystemExit(f"bench: {error}") from None
    if not options.prepare and options.results.parent == RESULTS:
        write_page.main(["--results", str(options.results)])


if __name__ == "__main__":
    main()
