"""Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and run their tests on that build.

    python tests/sanitize/run.py [BUILD_FOLDER]

Exits with pytest's status, or with the sanitizer's when it finds something. Needs Linux, CMake, and g++ or another
compiler that $CXX names. The build goes to a temporary folder unless one is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1]


def build(folder: Path) -> Path:
    """The compiled module."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "SEEWHY_SANITIZE": "ON",
        "SEEWHY_WERROR": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    # CMake installed from PyPI lies beside the interpreter, which is not always on the path.
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if cmake is None:
        raise SystemExit("CMake is needed to build the kernels: pip install cmake")
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run([cmake, "-S", SOURCE, "-B", folder, *definitions], check=True)
    subprocess.run([cmake, "--build", folder, "--parallel", "2"], check=True)
    modules = list(folder.glob("_core*.so"))
    if len(modules) != 1:
        raise SystemExit(f"expected one compiled module in {folder}, not {len(modules)}")
    code = modules[0].read_bytes()
    for mark in (b"__asan_report", b"__ubsan_handle"):
        if mark not in code:
            raise SystemExit(f"{modules[0]} was built without sanitizers: it does not call {mark.decode()}")
    return modules[0]


def libraries() -> str:
    """What has to be loaded before Python: the sanitizer, and the C++ runtime whose exceptions it watches."""
    compiler = os.environ.get("CXX", "g++")
    found = []
    for name in ("libasan.so", "libstdc++.so"):
        path = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
        if not Path(path.strip()).is_absolute():
            raise SystemExit(f"{compiler} has no {name}; install its sanitizer libraries")
        found.append(path.strip())
    return " ".join(found)


def run(module: Path) -> int:
    environment = {
        **os.environ,
        "LD_PRELOAD": libraries(),
        # Python keeps memory until it ends, which would all count as leaked.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        # Every object of its own, so that an overrun leaves it.
        "PYTHONMALLOC": "malloc",
    }
    return subprocess.run([sys.executable, HERE / "tests_on_module.py", module], env=environment).returncode


def main() -> int:
    if len(sys.argv) > 1:
        return run(build(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory(prefix="seewhy-sanitize-") as folder:
        return run(build(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
