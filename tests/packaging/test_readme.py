"""Tests of the code, tables and links in the documents.

The code of the README and of some how-to pages runs as printed. It runs in a copy of the repository that holds the
results of `make demo`, with the installed `seewhy`. Links in all documents lead to files and headings.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seewhy.methods.registry import METHODS
from support.markdown import Block, anchors, blocks, broken_links, documents, table
from support.repository import ROOT, copy_sources, make_demo

# Documents whose code runs as printed.
EXPORT_PAGE, EXPLAIN_PAGE = "docs/how-to/export-a-model.md", "docs/how-to/explain-images.md"
PLUGIN_PAGE = "docs/how-to/methods-of-your-own.md"
RUNNABLE = ("README.md", EXPORT_PAGE, EXPLAIN_PAGE, "docs/how-to/evaluate-methods.md")
PACKAGES = ("seewhy", "seewhy_export")
COMMANDS = Path(sys.executable).parent
# Blocks with these words export a network, evaluate methods or install a package, which takes longer than all other
# blocks together. Later blocks of the page may need their files.
LENGTHY = ("seewhy export", "seewhy evaluate", "seewhy.evaluate", "pip install")


def parameters(language: str) -> list[object]:
    found = []
    for document in RUNNABLE:
        marks: list[pytest.MarkDecorator] = []
        for block in blocks(document, language):
            if any(word in block.code for word in LENGTHY):
                marks = [pytest.mark.slow]
            if not block.code.startswith("make "):
                found.append(pytest.param(block, id=block.name, marks=marks))
    assert found
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository's sources with the model file and the images of the demo."""
    folder = copy_sources(tmp_path_factory.mktemp("readme") / "clone")
    make_demo(folder / "demo")
    return folder


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": os.pathsep.join([str(COMMANDS), os.environ.get("PATH", "")])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("block", parameters("python"))
def test_python_runs_as_printed(clone: Path, block: Block) -> None:
    printed = run([sys.executable, "-c", block.code], clone)
    for line in (line for line in block.code.splitlines() if line.startswith("print(") and ")  # " in line):
        # Take the value from the comment, without an ellipsis or words that follow.
        expected = re.match(r"[\[(].*?[\])]( \d\.\d+)?", line.rpartition("  # ")[2])
        if expected is not None:
            assert expected[0] in printed


@pytest.mark.skipif(shutil.which("seewhy", path=str(COMMANDS)) is None, reason="seewhy is not installed here")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("block", parameters("bash"))
def test_commands_run_as_printed(clone: Path, block: Block) -> None:
    run(["bash", "-euo", "pipefail", "-c", block.code], clone)
    for folder in set(re.findall(r" -o (out[\w-]*|cats)\b", block.code)):
        assert list((clone / folder).glob("*.png"))
    for file in re.findall(r" -o (\S+\.onnx)", block.code):
        assert (clone / file).is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("block", [b for b in blocks("README.md", "bash") if b.code.startswith("make ")])
def test_make_knows_its_targets(block: Block) -> None:
    commands = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    assert ["make", "demo"] in commands and ["make", "test"] in commands
    for command in commands:
        run([*command, "--dry-run"], ROOT)


@pytest.mark.slow
def test_the_documented_export_output(clone: Path) -> None:
    (printed,) = blocks(EXPORT_PAGE, "text")
    (command,) = (b for b in blocks(EXPORT_PAGE, "bash") if b.code.startswith("seewhy export"))
    run(["bash", "-c", f"{command.code.strip()} --no-verify > printed.txt"], clone)
    assert printed.code in (clone / "printed.txt").read_text()


def test_the_method_of_the_page_works_as_a_plugin(clone: Path) -> None:
    plugin, use, *_ = blocks(PLUGIN_PAGE, "python")
    (clone / "mine.py").write_text(plugin.code)
    arguments = ["demo/efficientnet_lite0.onnx", "demo/images/chelsea.png", "-o", "out-plugin"]
    method = ["--plugin", "mine.py", "--method", "power-gradcam", "--option", "power-gradcam.power=2"]
    run([sys.executable, "-m", "seewhy", "explain", *arguments, *method], clone)
    assert (clone / "out-plugin" / "chelsea.power-gradcam.png").is_file()
    shutil.copy(clone / "demo" / "efficientnet_lite0.onnx", clone / "model.onnx")
    shutil.copy(clone / "demo" / "images" / "chelsea.png", clone / "cat.png")
    run([sys.executable, "-c", use.code], clone)


def test_every_method_is_in_the_table() -> None:
    assert sorted(row[0].strip("`") for row in table(EXPLAIN_PAGE, "method")) == sorted(METHODS)


@pytest.mark.parametrize(
    "block", [b for document in documents() for b in blocks(document, "python")], ids=lambda block: block.name
)
def test_code_imports_names_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            if node.module.startswith("seewhy_export"):
                pytest.importorskip("torch")
            for name in node.names:
                exec(f"from {node.module} import {name.name}", {})


@pytest.mark.parametrize("document", documents())
def test_links_have_targets(document: str) -> None:
    assert broken_links(ROOT / document) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n[a](#page) [b](page.md#page) [c](https://example.org/x#y) `[d](missing.md)`\n"
        "```text\n# Not a heading\n[e](missing.md)\n```\n"
        "[f](missing.md) [g](#not-a-heading) [h](page.md#other) ![i](missing.png)\n"
    )
    assert broken_links(page) == ["missing.md", "#not-a-heading", "page.md#other", "missing.png"]


def test_anchors_follow_the_rule_of_github() -> None:
    text = "# A, b & c\n## `seewhy explain --ray`\n### What's *new*? ###\n## [Link](x.md) in_code\n# Twice\n# Twice\n"
    assert anchors(text) == {"a-b--c", "seewhy-explain---ray", "whats-new", "link-in_code", "twice", "twice-1"}


def tree(text: str) -> set[str]:
    """Return the file paths of a tree in the notation of docs/architecture.md."""
    paths, folders = set(), []
    for indent, name in re.findall(r"^( *)([\w./]+)  ", text, re.MULTILINE):
        folders = folders[: len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.add("".join([*folders, name]))
    return paths


def test_every_source_is_in_the_architecture() -> None:
    drawn = re.findall(
        r"^```\n(.*?)^```$", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("engine/seewhy", "export/seewhy_export", "csrc")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".cpp") and path.name != "__init__.py"
    }
    listed = set().union(*map(tree, drawn))
    assert {path for path in listed if not path.endswith(".h")} == found
    assert all((ROOT / path).is_file() for path in listed)
