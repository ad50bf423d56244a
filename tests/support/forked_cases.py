"""Call a function with many cases, in processes that may crash, hang or exhaust their memory.

This file is also the program that makes the calls. It imports the module of the function one time and then forks, so a
new process takes only milliseconds. It is a separate program because pytest has threads, which a fork would lose.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAGE = -1
"""File descriptor to which a child process reports its stages."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one case."""

    case: Any
    result: Any = None
    """Return value of the function."""
    raised: str | None = None
    """Traceback, if the function raised an exception."""
    killed: str | None = None
    """Signal that ended the process; SIGXCPU and SIGALRM mean that the function hung."""
    stage: str | None = None
    """Last stage that the function reported; see `stage`."""
    printed: str = ""
    """Text that the function printed on standard output and standard error."""
    peak: int = 0
    """Peak memory of the process so far, in bytes above the memory at its start."""

    @property
    def succeeded(self) -> bool:
        """True if the function returned and printed nothing."""
        return self.raised is None and self.killed is None and not self.printed


def run(
    function: str, cases: Sequence[Any], seconds: int = 10, wait: int = 200, memory: int = 1 << 30, group: int = 1
) -> list[Outcome]:
    """Call a function with each of `cases`, in order. Cases and results must be JSON values.

    Args:
        function: MODULE:NAME of a function that takes a case and returns a result. The module lies below `tests/`.
        cases: Arguments of the function.
        seconds: Limit of CPU time for each case, in seconds.
        wait: Limit of elapsed time for each case, in seconds.
        memory: Limit of the memory that a process may allocate after the imports, in bytes.
        group: Number of cases that one process runs in sequence. After a crash, a new process continues.
    """
    request = json.dumps(
        {"function": function, "limits": [seconds, wait, memory], "group": group, "cases": list(cases)}
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(program, input=request, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [Outcome(**fields) for fields in json.loads(done.stdout)]


def stage(name: str) -> None:
    """Report the stage that the function enters next."""
    os.write(_STAGE, json.dumps({"stage": name}).encode() + b"\n")


def _main() -> None:
    request = json.loads(sys.stdin.read())
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep prints of libraries out of the JSON output
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    # The function's module must import this module, not a second copy of it.
    sys.modules["support.forked_cases"] = sys.modules[__name__]
    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    remaining, outcomes = list(request["cases"]), []
    gc.freeze()  # a garbage collection in a child would copy all memory pages
    while remaining:
        finished = _run_in_child(function, remaining[: request["group"]], *request["limits"])
        outcomes += finished
        del remaining[: len(finished)]
    with output:
        json.dump(outcomes, output)


def _run_in_child(function: Any, cases: list[Any], seconds: int, wait: int, memory: int) -> list[dict[str, Any]]:
    """Return the outcomes of the cases, up to the first one that killed the process."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        _child(function, cases, seconds, wait, memory, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        lines = [json.loads(line) for line in file]
    status = os.waitpid(child, 0)[1]
    outcomes: list[dict[str, Any]] = []
    last = None
    for line in lines:
        last = line.get("stage")
        if last is None:
            outcomes.append(line)
    if os.WIFSIGNALED(status):
        killed = signal.Signals(os.WTERMSIG(status)).name
        outcomes.append({"case": cases[len(outcomes)], "killed": killed, "stage": last})
    elif len(outcomes) < len(cases):
        outcomes.append({"case": cases[len(outcomes)], "killed": f"status {os.WEXITSTATUS(status)}", "stage": last})
    return outcomes


def _child(function: Any, cases: list[Any], seconds: int, wait: int, memory: int, write_end: int) -> None:
    global _STAGE
    _STAGE = write_end
    try:
        page = resource.getpagesize()
        size, resident = (int(text) * page for text in Path("/proc/self/statm").read_text().split()[:2])
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
        with tempfile.TemporaryFile() as errors:
            os.dup2(errors.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            for case in cases:
                line = _call(function, case, seconds, wait)
                sys.stdout.flush()
                sys.stderr.flush()
                errors.seek(0)
                line["printed"] = errors.read().decode(errors="replace")
                errors.seek(0)
                errors.truncate()
                line["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
                os.write(write_end, json.dumps(line).encode() + b"\n")
    finally:
        os._exit(0)


def _call(function: Any, case: Any, seconds: int, wait: int) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    signal.alarm(wait)
    try:
        return {"case": case, "result": function(case)}
    except BaseException:  # noqa: BLE001  every exception is part of the outcome
        return {"case": case, "raised": traceback.format_exc()}
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    _main()
