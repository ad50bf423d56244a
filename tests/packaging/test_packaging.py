"""Tests of the wheel, the sdist, the requirements, and an installed engine without PyTorch."""

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

# With what they need themselves, these take an index to install from and a compiler.
slow = pytest.mark.slow


def command(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    # Another build's flags are not for these.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHONPATH")}
    return subprocess.run(
        list(map(os.fspath, arguments)), env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def checked(*arguments: str | os.PathLike[str]) -> str:
    done = command(*arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of the sources here, and the wheel that is built from that sdist."""
    pytest.importorskip("build")
    source = copy_sources(tmp_path_factory.mktemp("sources") / "seewhy")
    folder = tmp_path_factory.mktemp("dist")
    checked(sys.executable, "-m", "build", "--outdir", folder, source)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def sources(package: str) -> set[str]:
    folder = ROOT / package
    files = (path for path in folder.rglob("*") if path.suffix in (".py", ".pyi", ".typed"))
    return {path.relative_to(folder.parent).as_posix() for path in files}


@slow
def test_the_wheel_holds_both_packages_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = set(wheel.namelist())
    information = f"seewhy-{seewhy.__version__}.dist-info/"
    modules = {name for name in names if re.fullmatch(r"seewhy/_core\.[\w.-]*(so|pyd)", name)}
    assert len(modules) == 1
    packages = {name for name in names if not name.startswith(information)} - modules
    assert packages == sources("engine/seewhy") | sources("export/seewhy_export")
    assert {"seewhy/py.typed", "seewhy/_core.pyi"} <= packages
    assert {f"{information}licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names


@slow
def test_the_sdist_holds_what_a_build_needs(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    packages = {f"engine/{name}" for name in sources("engine/seewhy")}
    packages |= {f"export/{name}" for name in sources("export/seewhy_export")}
    assert kernels | packages | {"CMakeLists.txt", "pyproject.toml", "LICENSE", "NOTICE", "README.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".onnx"))]


@slow
def test_without_pytorch_the_numbers_are_the_same(dist: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "demo")
    model = tmp_path / "demo" / "efficientnet_lite0.onnx"
    venv.create(tmp_path / "runtime", with_pip=True)
    python = tmp_path / "runtime" / ("Scripts" if os.name == "nt" else "bin") / "python"
    checked(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", only(dist, "*.whl"))
    installed = {line.partition("==")[0].lower() for line in checked(python, "-m", "pip", "freeze").splitlines()}
    assert not {"torch", "torchvision", "timm", "onnxscript", "scikit-image"} & installed
    assert checked(python, "-m", "seewhy", "--version") == f"seewhy {seewhy.__version__}\n"

    # Score-CAM would take 1280 passes a photograph, of the forward graph that all the others run too.
    methods = [name for name in seewhy.Explainer(model).methods if name != "scorecam"]
    options = [argument for name in methods for argument in ("--method", name)]
    options += ["--option", "smoothgrad.samples=2", "--option", "integrated-gradients.steps=2"]
    for name, interpreter in (("with", sys.executable), ("without", python)):
        arguments = [model, tmp_path / "demo/photographs", "-o", tmp_path / name, "--save-raw", *options]
        checked(interpreter, "-m", "seewhy", "explain", *arguments)
    files = {path.name for path in (tmp_path / "with").iterdir()}
    assert files == {path.name for path in (tmp_path / "without").iterdir()}
    files -= {"run.json", ".seewhy.lock"}  # which tell the time and the process
    assert len(files - JOB_FILES) == 5 * (2 * len(methods) + 1), "a picture and numbers for each method, and a sheet"
    for file in sorted(files):
        one, other = tmp_path / "with" / file, tmp_path / "without" / file
        if file.endswith(".npz"):
            with np.load(one) as ours, np.load(other) as theirs:
                assert ours.files == theirs.files
                # The same onnxruntime on the same processor, and kernels that give the same bits anywhere.
                assert all(np.array_equal(ours[key], theirs[key]) for key in ours.files)
        else:
            assert one.read_bytes() == other.read_bytes()

    for name, extra in (("export", "export"), ("demo", "demo")):
        refused = command(python, "-m", "seewhy", name, "torchvision:resnet18", "-o", tmp_path / "x.onnx")
        assert refused.returncode == 2
        assert re.fullmatch(rf"seewhy: error: .* is not installed; run: .*\[{extra}\].*\n", refused.stderr)


def test_the_version_is_the_one_installed() -> None:
    assert importlib.metadata.version("seewhy") == seewhy.__version__


def requirements() -> dict[str, set[str]]:
    """Extra ("" for none) -> the packages that it asks for, lower case."""
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
    asked = {name for names in requirements().values() for name in names} - {"seewhy"}
    assert asked <= pinned
