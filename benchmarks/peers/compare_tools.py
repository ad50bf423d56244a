"""Measure SeeWhy beside the tools that one would use instead (`make bench`).

    python benchmarks/peers/compare_tools.py                          everything, from scratch, and the page
    python benchmarks/peers/compare_tools.py --missing                what benchmarks/results/peers.json lacks
    python benchmarks/peers/compare_tools.py --questions gradcam guided --models resnet50 --batches 1 8 --rounds 5
    python benchmarks/peers/compare_tools.py --install                the tools' environments alone

Needs an interpreter that has SeeWhy with its extras `demo`, `timm` and `dev`, as `make` makes it. Everything else is
installed below the folder `.bench`, several GiB; what is there already is used again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS, ROOT
from benchmarks.peers import cold_start, input_files, results_file
from benchmarks.peers.benchmark_questions import ALL, COLD, QUESTIONS, ROUNDS, Question
from benchmarks.peers.measurement_rounds import Group, Rival, Tool, measure
from benchmarks.peers.tool_environments import ENVIRONMENTS, SEEWHY, EnvironmentFailure, Environments, sources_digest
from benchmarks.peers.worker_process import KILLED, Process, ToolFailure
from benchmarks.shared.machine_facts import available_cores, describe

FILE = RESULTS / "peers.json"
COLD_ROUNDS = 7


class Bench:
    """Everything that a run needs to know."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.folder = chosen.folder.resolve()
        self.environments = Environments(self.folder / "environments", chosen.allow_gpu_libraries)
        self.inputs = self.folder / "models"
        self.missing_tools: dict[str, str] = {}
        self.sources = sources_digest()

    def install(self) -> None:
        for name in ENVIRONMENTS:
            start = time.monotonic()
            try:
                if self.environments.make(name):
                    say(f"installed {name} in {time.monotonic() - start:.0f} s")
            except EnvironmentFailure as failure:
                if name == SEEWHY:
                    raise
                self.missing_tools[name] = str(failure)
                say(f"not installed: {name}: {failure}")

    def conditions(self) -> dict[str, Any]:
        packages = {name: self.environments.packages(name) for name in ENVIRONMENTS if name not in self.missing_tools}
        return {
            "machine": describe(),
            "threads": self.chosen.threads,
            "sources": self.sources,
            "packages": packages,
        }

    def run(self) -> None:
        self.install()
        if self.chosen.install:
            return
        restricted = self.chosen.models or self.chosen.batches or self.chosen.questions
        keep = bool(self.chosen.missing or self.chosen.keep_earlier or restricted)
        kept = results_file.Results(self.chosen.results, self.conditions(), keep, self.chosen.keep_earlier)
        input_files.write_inputs(self.inputs)
        for name in self.chosen.questions or ALL:
            for model in self._models(cold_start.MODELS if name == COLD else QUESTIONS[name].models):
                start = time.monotonic()
                if name == COLD:
                    self._cold(kept, model)
                else:
                    self._question(kept, name, QUESTIONS[name], model)
                say(f"{name}, {model}: {time.monotonic() - start:.0f} s")

    def _models(self, there: Sequence[str]) -> list[str]:
        return [name for name in there if name == "any" or not self.chosen.models or name in self.chosen.models]

    def _lacks(self, kept: results_file.Results, key: str) -> bool:
        return not (self.chosen.missing and kept.has(key))

    def _prepared(self, model: str) -> Path:
        """The files depend on the exporter of the sources measured."""
        return self.inputs / model if model == "any" else input_files.prepare(self.inputs, model, self.sources)

    def _cold(self, kept: results_file.Results, model: str) -> None:
        key = results_file.key(COLD, model, 1)
        if self._lacks(kept, key):
            rounds = self.chosen.rounds or COLD_ROUNDS
            kept.add(key, cold_start.measure(self.environments, self._prepared(model), self.chosen.threads, rounds))

    def _question(self, kept: results_file.Results, name: str, question: Question, model: str) -> None:
        batches = [batch for batch in question.batches if not self.chosen.batches or batch in self.chosen.batches]
        wanted = [batch for batch in batches if self._lacks(kept, results_file.key(name, model, batch))]
        if wanted:
            with self.started_tools(name, model, question, question.rivals) as tools:
                for batch in wanted:
                    trying = [tool for tool in tools if tool.rival.tries(model, batch)]
                    kept.add(results_file.key(name, model, batch), self.measure_group(question, model, batch, trying))
        for batch in batches:
            self.measure_apart(kept, name, question, model, batch)

    def measure_apart(self, kept: results_file.Results, name: str, question: Question, model: str, batch: int) -> None:
        """Tools for which the memory of all together did not suffice, beside the two that others are divided by."""
        key = results_file.key(name, model, batch)
        for rival in question.rivals:
            record = kept.rivals(key).get(rival.name, {})
            if not record.get("failed", "").startswith(KILLED) or record.get("apart"):
                continue
            few = [other for other in question.rivals if other.name in (rival.name, question.ours, question.floor)]
            with self.started_tools(name, model, question, few) as tools:
                group = self.measure_group(question, model, batch, tools)
            kept.replace(key, rival.name, {**group["rivals"][rival.name], "apart": True})

    def measure_group(self, question: Question, model: str, batch: int, tools: Sequence[Tool]) -> dict[str, Any]:
        place = self._prepared(model)
        rounds = self.chosen.rounds or (question.rounds or ROUNDS)[batch]
        with tempfile.TemporaryDirectory(prefix="bench-", dir=self.folder) as scratch:
            tasks = {
                tool.rival.name: {
                    "model": str(place),
                    "batch": batch,
                    "threads": tool.rival.threads or self.chosen.threads,
                    "options": question.options(tool.rival, self.inputs, Path(scratch)),
                }
                for tool in tools
            }
            group = Group(tools, tasks, question.ours, question.floor, question.compare, Path(scratch))
            return measure(group, rounds, self.chosen.quiet)

    @contextlib.contextmanager
    def started_tools(self, name: str, model: str, question: Question, rivals: Sequence[Rival]) -> Iterator[list[Tool]]:
        """All started together; each is ready before anything is measured."""
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
        return Tool(rival, Process(python, rival.job, rival.threads or self.chosen.threads, log))


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", nargs="+", choices=ALL, metavar="QUESTION", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--models", nargs="+", choices=input_files.MODELS, metavar="MODEL", help="some of the networks")
    parser.add_argument("--batches", nargs="+", type=int, choices=(1, 8, 32), help="some of the batch sizes")
    parser.add_argument("--rounds", type=int, help="rounds of every group, instead of fewer for larger batches")
    parser.add_argument("--missing", action="store_true", help="only what the file of results lacks")
    parser.add_argument("--keep-earlier", action="store_true", help="keep figures of other commits, and mark them")
    parser.add_argument("--quiet", type=float, metavar="CORES", help="measure only while others keep fewer cores busy")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of every tool (all cores)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="for environments and models (.bench)")
    parser.add_argument("--results", type=Path, default=FILE, help="the JSON file to write")
    parser.add_argument("--install", action="store_true", help="install the tools, and measure nothing")
    parser.add_argument("--allow-gpu-libraries", action="store_true", help="let pip install gigabytes for GPUs")
    return parser


def main() -> None:
    chosen = arguments().parse_args()
    try:
        Bench(chosen).run()
    except (EnvironmentFailure, results_file.OtherConditions, RuntimeError) as error:
        raise SystemExit(f"bench: {error}") from None
    if not chosen.install and chosen.results == FILE:
        from benchmarks.peers.page import write_page

        write_page.main([])


if __name__ == "__main__":
    main()
