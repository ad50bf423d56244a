"""Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and run their tests on that build.

    python tests/sanitize/run.py [BUILD_FOLDER]

The exit status is that of pytest, or 99 if a sanitizer reports an error. The script needs Linux, CMake, and g++ or the
compiler in $CXX. Without BUILD_FOLDER, the build goes to a temporary folder.
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
    """Build the kernels with sanitizers and return the path of the compiled module."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "SEEWHY_SANITIZE": "ON",
        "SEEWHY_WERROR": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    # CMake from PyPI is installed next to the interpreter, whose folder may not be in PATH.
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
    for symbol in (b"__asan_report", b"__ubsan_handle"):
        if symbol not in code:
            raise SystemExit(f"{modules[0]} was built without sanitizers: it does not call {symbol.decode()}")
    return modules[0]


def libraries() -> str:
    """Return the libraries to preload: the sanitizer, and the C++ runtime whose exceptions it intercepts."""
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
        # Python keeps memory until it exits, and all of it would count as leaked.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        # Allocate every object separately, so that an overrun is detected.
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
