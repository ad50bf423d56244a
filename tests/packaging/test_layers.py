"""Tests of the import contracts in pyproject.toml, and of packages that the engine must not import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from support.repository import ROOT

EXPLAIN = """
explainer = seewhy.Explainer(sys.argv[1])
explainer.explain(numpy.zeros((1, 3, 12, 16), numpy.float32), method=list(explainer.methods))
import seewhy.bulk.explain_files, seewhy.cli.main, seewhy.cli.model_report, seewhy.visualization.contact_sheet
seewhy.cli.main.main(["--help"], standalone_mode=False)
seewhy.cli.main.main(["inspect", sys.argv[1]], standalone_mode=False)
"""


def run_in_new_process(code: str, *arguments: str) -> str:
    """Run `code` in a new interpreter and return the last line that it prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def print_if_loaded(name: str) -> str:
    return f"\nprint(any(m == '{name}' or m.startswith('{name}.') for m in sys.modules))"


@pytest.mark.parametrize("name", ["torch", "seewhy_export"])
@pytest.mark.parametrize("code", ["", EXPLAIN])
def test_runtime_does_not_import(model_path: Path, name: str, code: str) -> None:
    assert (
        run_in_new_process(f"import sys, numpy, seewhy, seewhy.cli.main{code}{print_if_loaded(name)}", str(model_path))
        == "False"
    )


@pytest.mark.parametrize("name", ["onnx", "concurrent.futures", "difflib", "importlib.metadata", "sqlite3"])
def test_a_first_heatmap_needs_no_slow_import(model_path: Path, name: str) -> None:
    """onnx's message classes are loaded without the package (`runtime/onnx_messages.py`), and one driver of Pillow."""
    code = f"""
import sys, numpy, onnxruntime
before = set(sys.modules)
import seewhy
seewhy.Explainer(sys.argv[1]).explain(sys.argv[2]).heatmaps
new = set(sys.modules) - before
drivers = {{module for module in new if module.startswith("PIL.") and module.endswith("Plugin")}}
print(sorted({{"seewhy.visualization.fonts", {name!r}}} & new | drivers - {{"PIL.JpegImagePlugin"}}))
"""
    image = model_path.with_name("noise.jpg")
    Image.effect_noise((40, 30), 64).save(image)
    assert run_in_new_process(code, str(model_path), str(image)) == "[]"


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "PIL", "numpy"])
def test_contract_imports_only_the_standard_library(name: str) -> None:
    assert (
        run_in_new_process(f"import sys, seewhy.contract.metadata, seewhy.contract.checksum{print_if_loaded(name)}")
        == "False"
    )


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml for the sources in `folder`."""
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["engine", "export", os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([*command, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "imported", "broken"),
    [
        ("engine/seewhy/storage/manifest.py", "seewhy.explainer.explainer", "The engine's packages"),
        ("engine/seewhy/images/decoding.py", "seewhy.storage.manifest", "The engine's packages"),
        ("engine/seewhy/errors.py", "seewhy", "The engine's packages"),
        ("engine/seewhy/_shared/text.py", "seewhy_export.exporter", "The exporter imports the engine"),
        ("engine/seewhy/images/transparency.py", "seewhy.images.decoding", "The files of a package"),
        (
            "export/seewhy_export/capture/forward_graph.py",
            "seewhy_export.backward.rectifiers",
            "The exporter's packages",
        ),
        ("export/seewhy_export/lowering/shape_helpers.py", "seewhy_export.lowering.table", "The files of a package"),
    ],
)
def test_an_import_of_a_higher_layer_breaks_a_contract(tmp_path: Path, file: str, imported: str, broken: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("engine", "export"):
        shutil.copytree(ROOT / name, tmp_path / name)
    assert lint_imports(tmp_path).returncode == 0
    with (tmp_path / file).open("a") as source:
        source.write(f"\nimport {imported}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert any(line.startswith(broken) and line.endswith("BROKEN") for line in done.stdout.splitlines()), done.stdout
