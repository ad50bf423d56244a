"""Tests that workflows, hooks, citation and contributor files agree with each other and with the packages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import seewhy
from support.repository import ROOT

yaml = pytest.importorskip("yaml")

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as the boolean True.
    return workflow[True]


def make_commands(target: str) -> list[list[str]]:
    """Return the commands of one target of the Makefile, with the paths of the virtual environment filled in."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [shlex.split(line.replace("$(VENV)", ".venv")) for line in recipe.splitlines()]


def test_there_are_two_workflows() -> None:
    assert [path.name for path in WORKFLOWS] == ["lint.yml", "test.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_one_target_with_least_permissions(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert set(triggers(workflow)) == {"push", "pull_request"}
    ((name, job),) = workflow["jobs"].items()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs == [f"make {name} SEEWHY_WERROR=ON"]
    assert make_commands(name)
    (checkout,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"] == {"persist-credentials": False}


def test_the_tests_run_on_every_python_of_the_classifiers() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", text)
    job = load(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]
    assert supported and job["strategy"]["matrix"]["python-version"] == supported
    linted = load(ROOT / ".github" / "workflows" / "lint.yml")["jobs"]["lint"]["steps"][1]["with"]["python-version"]
    assert linted in supported


def test_the_hooks_run_what_make_lint_runs() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = repository["hooks"]
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)
    # A shell sets variables by itself; a hook runs without one and needs `env`.
    commands = [shlex.split(hook["entry"].removeprefix("env ")) for hook in hooks]
    assert commands == make_commands("lint")
    assert len({hook["id"] for hook in hooks}) == len(hooks)


def test_the_citation_has_this_version() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "SeeWhy" and citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The SeeWhy authors"}]
    assert citation["version"] == seewhy.__version__


def test_the_changelog_has_an_unreleased_section() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "SECURITY.md"])
def test_paths_in_the_text_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:engine|export|csrc|tests|docs|benchmarks|\.ci)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_an_sdist_holds_the_files_for_contributors() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    included = set(re.findall(r'^    "/([^"*]+)",$', text, re.MULTILINE))
    root_files = {path.name for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert {name for name in root_files if name.endswith((".md", ".cff"))} <= included
    assert included <= root_files
