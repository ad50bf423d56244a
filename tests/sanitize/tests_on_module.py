"""Run the kernel tests on one compiled module, without the rest of the package. run.py starts this program.

    python tests/sanitize/tests_on_module.py MODULE

The program replaces `seewhy` with an empty package that contains only the given module. It therefore loads neither an
installed build nor onnxruntime, whose memory errors are not errors of SeeWhy.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[1]
# These tests measure CPU times or wait for another thread; the instrumented code distorts both.
EXCLUDED = ["large_work", "stays_on", "zero_threads", "interpreter_lock"]


def main(path: str) -> int:
    spec = spec_from_file_location("seewhy._core", path)
    assert spec is not None and spec.loader is not None
    package = ModuleType("seewhy")
    package.__path__ = []
    sys.modules["seewhy"] = package
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["seewhy._core"] = module
    vars(package)["_core"] = module

    tests = str(TESTS / "kernels")
    names = " and ".join(f"not {name}" for name in EXCLUDED)
    # The fixtures in tests/conftest.py need an Explainer, which this package does not have.
    arguments = ["-q", "-x", f"--confcutdir={tests}", "--capture=sys", "-p", "no:cacheprovider", "-k", names]
    return pytest.main(
        ["--rootdir", str(TESTS.parent), "-c", str(TESTS.parent / "pyproject.toml"), *arguments, str(tests)]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
