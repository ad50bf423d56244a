"""Virtual environments of the tools: one per tool, so that each has its own size and its own version pins."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROOT

CONSTRAINTS = ROOT / "constraints.txt"
SEEWHY = "seewhy"
# GPU libraries, which take gigabytes and are not used by the measurements.
_FOR_GPUS = re.compile(r"(nvidia|cuda|rocm|(pytorch[-_.])?triton)([-_.].*)?", re.IGNORECASE)
SOURCES = ("pyproject.toml", "CMakeLists.txt", "csrc", "engine", "export")
"""Files and folders from which seewhy is installed."""


class EnvironmentFailure(Exception):
    """An environment cannot be created; the message gives the reason in one line."""


@dataclass(frozen=True)
class Environment:
    """Requirements of one virtual environment."""

    requirements: tuple[str, ...]
    constrained: bool = True
    """True to install with constraints.txt; False if the tool pins older versions of the same packages."""


_TORCH = ("torch", "torchvision")
ENVIRONMENTS: Mapping[str, Environment] = {
    SEEWHY: Environment((str(ROOT),)),
    # The last commit that had no 8-bit files, to which an aim compares the rate of a folder.
    "seewhy-before": Environment((f"seewhy @ git+{ROOT.as_uri()}@e9ce74d055b9e36ef9dd7d10472a4a9ea5ef1601",)),
    "torch": Environment((*_TORCH, "numpy")),
    "grad-cam": Environment(("grad-cam", *_TORCH)),
    "torchcam": Environment(("torchcam==0.5.0", *_TORCH)),
    "captum": Environment(("captum", *_TORCH)),
    "openvino": Environment(("openvino==2026.4.1", "numpy")),
    # It needs openvino-dev 2024.4 and NumPy 1, so it cannot use constraints.txt.
    "openvino_xai": Environment(("openvino_xai==1.1.0",), constrained=False),
    "opencv": Environment(("opencv-python-headless", "numpy", "pillow")),
}


class Environments:
    """Virtual environments below one folder, created when needed and reused."""

    def __init__(self, folder: Path, allow_gpu: bool = False) -> None:
        self.folder = folder
        self._allow_gpu = allow_gpu

    def python(self, name: str) -> Path:
        """Return the path of the environment's interpreter, even if it does not exist yet."""
        return _python(self.folder / name)

    def make(self, name: str) -> bool:
        """Install an environment if it is missing or outdated, and return True if it was installed.

        Raises:
            EnvironmentFailure: If pip cannot install it or would install GPU libraries.
        """
        expected = {"requirements": _expected_stamp(name), "python": sys.version.split()[0]}
        stamp = self.folder / name / "made.json"
        if stamp.exists() and json.loads(stamp.read_text()) == expected:
            return False
        environment = ENVIRONMENTS[name]
        new = not self.python(name).exists()
        if new:
            venv.create(self.folder / name, with_pip=False, symlinks=os.name != "nt")
        stamp.unlink(missing_ok=True)
        arguments = ["--python", str(self.python(name)), "install", "--quiet"]
        if environment.constrained:
            arguments += ["--constraint", str(CONSTRAINTS), "--build-constraint", str(CONSTRAINTS)]
        if not self._allow_gpu:
            self._refuse_gpu_libraries(name, arguments)
        self._pip([*arguments, *environment.requirements])
        if name == SEEWHY and not new:  # pip does not reinstall an unchanged version
            self._pip([*arguments, "--force-reinstall", "--no-deps", *environment.requirements])
        stamp.write_text(json.dumps(expected))
        return True

    def packages(self, name: str) -> dict[str, str]:
        """Return the versions of the installed packages by name."""
        return {item["name"].lower(): item["version"] for item in json.loads(self._list(name))}

    def size(self, name: str) -> int:
        """Return the size of site-packages in bytes, including compiled Python files."""
        folder = next((self.folder / name).glob("[Ll]ib/**/site-packages"))
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

    def _list(self, name: str) -> str:
        return self._pip(["--python", str(self.python(name)), "list", "--format", "json"])

    def _refuse_gpu_libraries(self, name: str, arguments: Sequence[str]) -> None:
        requirements = _without_checkout(ENVIRONMENTS[name].requirements)
        if not requirements:
            return
        found = gpu_libraries(json.loads(self._pip([*arguments, "--dry-run", "--report", "-", *requirements])))
        if found:
            raise EnvironmentFailure(
                f"{name}: pip would install {len(found)} GPU packages ({', '.join(found[:3])}); point pip to PyTorch's "
                f"CPU wheels (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), or use --allow-gpu-libraries"
            )

    def _pip(self, arguments: Sequence[str]) -> str:
        python = _python(self.folder / "pip")
        if not python.exists():
            venv.create(self.folder / "pip", with_pip=True)
            _run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.3"])
        return _run([str(python), "-m", "pip", *arguments])


def gpu_libraries(report: Mapping[str, Any]) -> list[str]:
    """Return the names of GPU packages in a report of `pip install --report`."""
    names = [item["metadata"]["name"] for item in report["install"]]
    return sorted(name for name in names if _FOR_GPUS.fullmatch(name))


def sources_digest() -> str:
    """Return a digest of all files from which seewhy is installed."""
    digest = hashlib.sha256()
    for source in SOURCES:
        top = ROOT / source
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            name = path.relative_to(ROOT)
            is_generated = "__pycache__" in name.parts or any(part.startswith(".") for part in name.parts)
            if path.is_file() and not is_generated and path.suffix not in (".so", ".pyd"):
                digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _expected_stamp(name: str) -> list[str]:
    environment = ENVIRONMENTS[name]
    pins = [hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()[:16]] if environment.constrained else []
    own = [sources_digest()] if name == SEEWHY else []
    return [*(_without_checkout(environment.requirements) or [SEEWHY]), *pins, *own]


def _without_checkout(requirements: Sequence[str]) -> list[str]:
    return [requirement for requirement in requirements if requirement != str(ROOT)]


def _python(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def _run(command: Sequence[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise EnvironmentFailure(f"{' '.join(command[-3:])}: {(last or ['no message'])[-1]}")
    return done.stdout
