"""The runtime stands without the exporter: a fresh process imports neither torch nor seewhy_export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXPLAIN = """
explainer = seewhy.Explainer(sys.argv[1])
explainer.explain(numpy.zeros((1, 3, 12, 16), numpy.float32), method=list(explainer.methods))
import seewhy.bulk.explain_files, seewhy.cli.main, seewhy.cli.model_report, seewhy.visualization.contact_sheet
seewhy.cli.main.main(["--help"], standalone_mode=False)
seewhy.cli.main.main(["inspect", sys.argv[1]], standalone_mode=False)
"""


def fresh(code: str, *arguments: str) -> str:
    """Run `code` in a new interpreter, and return what it prints last."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def loaded(name: str) -> str:
    return f"\nprint(any(m == '{name}' or m.startswith('{name}.') for m in sys.modules))"


@pytest.mark.parametrize("name", ["torch", "seewhy_export"])
@pytest.mark.parametrize("code", ["", EXPLAIN])
def test_runtime_does_not_import(model_path: Path, name: str, code: str) -> None:
    assert fresh(f"import sys, numpy, seewhy, seewhy.cli.main{code}{loaded(name)}", str(model_path)) == "False"


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "PIL", "numpy"])
def test_contract_needs_the_standard_library_alone(name: str) -> None:
    assert fresh(f"import sys, seewhy.contract.metadata, seewhy.contract.checksum{loaded(name)}") == "False"
