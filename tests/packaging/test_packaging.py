"""Tests of the wheel, the sdist, the requirements, and an installation of the engine without PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import seewhy
from support.jobs.broken_jobs import JOB_FILES
from support.repository import ROOT, copy_sources, make_demo

# These tests need a package index and a compiler.
slow = pytest.mark.slow


def run(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    # Do not pass on the flags of a surrounding build.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHONPATH")}
    return subprocess.run(
        list(map(os.fspath, arguments)), env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def run_checked(*arguments: str | os.PathLike[str]) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an sdist of these sources and the wheel built from that sdist."""
    pytest.importorskip("build")
    source = copy_sources(tmp_path_factory.mktemp("sources") / "seewhy")
    folder = tmp_path_factory.mktemp("dist")
    run_checked(sys.executable, "-m", "build", "--outdir", folder, source)
    return folder


def single_match(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def sources(package: str) -> set[str]:
    folder = ROOT / package
    files = (path for path in folder.rglob("*") if path.suffix in (".py", ".pyi", ".typed"))
    return {path.relative_to(folder.parent).as_posix() for path in files}


@slow
def test_the_wheel_holds_both_packages_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(single_match(dist, "*.whl")) as wheel:
        names = set(wheel.namelist())
    information = f"seewhy-{seewhy.__version__}.dist-info/"
    modules = {name for name in names if re.fullmatch(r"seewhy/_core\.[\w.-]*(so|pyd)", name)}
    assert len(modules) == 1
    packages = {name for name in names if not name.startswith(information)} - modules
    assert packages == sources("engine/seewhy") | sources("export/seewhy_export")
    assert {"seewhy/py.typed", "seewhy/_core.pyi"} <= packages
    assert {f"{information}licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names


@slow
def test_the_sdist_has_all_files_for_a_build(dist: Path) -> None:
    with tarfile.open(single_match(dist, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    packages = {f"engine/{name}" for name in sources("engine/seewhy")}
    packages |= {f"export/{name}" for name in sources("export/seewhy_export")}
    assert kernels | packages | {"CMakeLists.txt", "pyproject.toml", "LICENSE", "NOTICE", "README.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    assert {name for name in names if name.endswith(".onnx")} == {"tests/data/schema1.onnx"}


@slow
def test_results_without_pytorch_are_identical(dist: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "demo")
    model = tmp_path / "demo" / "efficientnet_lite0.onnx"
    venv.create(tmp_path / "runtime", with_pip=True)
    python = tmp_path / "runtime" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run_checked(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", single_match(dist, "*.whl"))
    installed = {line.partition("==")[0].lower() for line in run_checked(python, "-m", "pip", "freeze").splitlines()}
    assert not {"torch", "torchvision", "timm", "onnxscript", "scikit-image"} & installed
    assert run_checked(python, "-m", "seewhy", "--version") == f"seewhy {seewhy.__version__}\n"

    # Score-CAM would run 1280 forward passes per image, of the same graph that the other methods run.
    methods = [name for name in seewhy.Explainer(model).methods if name != "scorecam"]
    options = [argument for name in methods for argument in ("--method", name)]
    options += ["--option", "smoothgrad.samples=2", "--option", "integrated-gradients.steps=2"]
    for name, interpreter in (("with", sys.executable), ("without", python)):
        arguments = [model, tmp_path / "demo/images", "-o", tmp_path / name, "--save-raw", *options]
        run_checked(interpreter, "-m", "seewhy", "explain", *arguments)
    files = {path.name for path in (tmp_path / "with").iterdir()}
    assert files == {path.name for path in (tmp_path / "without").iterdir()}
    files -= {"run.json", ".seewhy.lock"}  # these contain times and process IDs
    assert len(files - JOB_FILES) == 5 * (2 * len(methods) + 1), (
        "an overlay and raw values for each method, and a contact sheet"
    )
    for file in sorted(files):
        one, other = tmp_path / "with" / file, tmp_path / "without" / file
        if file.endswith(".npz"):
            with np.load(one) as ours, np.load(other) as theirs:
                assert ours.files == theirs.files
                # Both use the same onnxruntime on the same processor, and the kernels give the same bits everywhere.
                assert all(np.array_equal(ours[key], theirs[key]) for key in ours.files)
        else:
            assert one.read_bytes() == other.read_bytes()

    for name, extra in (("export", "export"), ("demo", "demo")):
        refused = run(python, "-m", "seewhy", name, "torchvision:resnet18", "-o", tmp_path / "x.onnx")
        assert refused.returncode == 2
        assert re.fullmatch(rf"seewhy: error: .* is not installed; run: .*\[{extra}\].*\n", refused.stderr)


def test_version_matches_the_installed_package() -> None:
    assert importlib.metadata.version("seewhy") == seewhy.__version__


def requirements() -> dict[str, set[str]]:
    """Return the required packages in lower case, by extra ("" for no extra)."""
    found: dict[str, set[str]] = {}
    for text in importlib.metadata.requires("seewhy") or []:
        extra = re.search(r"""extra == ['"](\w+)['"]""", text)
        name = re.match(r"[\w.-]+", text)
        assert name is not None
        found.setdefault(extra[1] if extra else "", set()).add(name[0].lower())
    return found


def test_the_runtime_needs_five_packages() -> None:
    assert requirements()[""] == {"click", "numpy", "onnx", "onnxruntime", "pillow"}


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].strip().lower() for line in lines if "==" in line and not line.startswith("#")}
    required = {name for names in requirements().values() for name in names} - {"seewhy"}
    assert required <= pinned
