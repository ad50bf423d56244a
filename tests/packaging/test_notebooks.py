"""Tests of docs/notebooks: they run from a clean kernel, and their stored outputs come from such a run."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.markdown import broken_links
from support.repository import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# Paths of the machine on which a notebook ran: absolute ones of Unix, those of Windows, and installed packages.
MACHINE_PATH = re.compile(r"(?<![\w.:/<])/(tmp|home|root|work|usr|var|opt|Users|private)\b|[A-Za-z]:\\\\|site-packages")
MOST_IMAGE_BYTES = 250_000


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def texts(cells: list[dict[str, Any]]) -> list[str]:
    """Return what the cells put out, without embedded images."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    found = ["".join(output.get("text", "")) for output in outputs]
    for output in outputs:
        found += ["".join(text) for kind, text in output.get("data", {}).items() if not kind.startswith("image/")]
    return [re.sub(r"data:image/png;base64,[\w+/=]+", "", text) for text in found]


def image_bytes(cells: list[dict[str, Any]]) -> int:
    everything = json.dumps([cell["outputs"] for cell in cells])
    encoded = re.findall(r"iVBORw0KGgo[\w+/=]+", everything)  # every PNG starts so
    return sum(len(base64.b64decode(text)) for text in encoded)


def kinds(cells: list[dict[str, Any]]) -> list[list[str]]:
    """Return the types of data that each cell puts out."""
    return [[kind for output in cell["outputs"] for kind in sorted(output.get("data", {"text": 0}))] for cell in cells]


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["which-explanation-to-trust.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_outputs(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and {output["output_type"] for output in outputs} <= {"execute_result", "display_data", "stream"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}  # no warnings
    assert [text for text in texts(cells) if MACHINE_PATH.search(text)] == []
    assert 10_000 < image_bytes(cells) < MOST_IMAGE_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_have_targets(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", dirs_exist_ok=True)
    page = folder / "page.md"
    page.write_text(prose, encoding="utf-8")
    assert "](../" in prose and broken_links(page) == []


def test_machine_paths_are_found() -> None:
    for text in ("in /tmp/x", "'/home/me'", "(/root/a.py)", r"C:\\Users", ".venv/lib/python3.11/site-packages/x"):
        assert MACHINE_PATH.search(text), text
    for text in ("photos/tmp", "https://example.org/home", "</tmp>", "mean/var", "1/work"):
        assert not MACHINE_PATH.search(text), text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run_from_a_clean_kernel(path: Path, tmp_path: Path) -> None:
    """A cell that fails ends the run with an error. Each cell puts out what is stored, but for the numbers."""
    pytest.importorskip("torch")
    shutil.copyfile(path, tmp_path / "notebook.ipynb")
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR")
    private = {name: str(tmp_path / name) for name in names}
    (tmp_path / "TMPDIR").mkdir()
    command = "from nbclient.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--output=executed", str(tmp_path / "notebook.ipynb")],
        env={**os.environ, **private},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    stored, executed = code_cells(path), code_cells(tmp_path / "executed.ipynb")
    assert kinds(executed) == kinds(stored)
    assert image_bytes(executed) < 1.2 * MOST_IMAGE_BYTES
    assert [text for text in texts(executed) if MACHINE_PATH.search(text)] == []
