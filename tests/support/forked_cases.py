"""Calls of a function with many cases, in processes that may crash, hang, or ask for all memory.

This file is also the program that makes the calls: it imports the module of the function once and forks, so that a
process costs milliseconds. It is a program of its own because pytest has threads, which a fork would lose.
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
"""File descriptor that a child reports to."""


@dataclass(frozen=True)
class Ended:
    """How a case ended."""

    case: Any
    result: Any = None
    """What the function returned."""
    raised: str | None = None
    """The traceback, if it raised."""
    killed: str | None = None
    """The signal that ended the process; SIGXCPU and SIGALRM are those of a hang."""
    stage: str | None = None
    """The last stage that it reported; see `stage`."""
    printed: str = ""
    """Text on standard output and standard error."""
    peak: int = 0
    """Peak memory of its process so far, in bytes above what it began with."""

    @property
    def well(self) -> bool:
        """Whether the function returned and printed nothing."""
        return self.raised is None and self.killed is None and not self.printed


def run(
    function: str, cases: Sequence[Any], seconds: int = 10, wait: int = 200, memory: int = 1 << 30, group: int = 1
) -> list[Ended]:
    """Call `function`, MODULE:NAME below the folder of the tests, with each of `cases`, in order. All values are JSON.

    Args:
        function: Function that takes a case and returns a result.
        cases: Arguments of the function.
        seconds: Limit of processor time for each case, in seconds.
        wait: Limit of elapsed time for each case, in seconds.
        memory: Bytes that a process may take beyond the module of the function itself.
        group: Number of cases that a process takes, one after the other. A process that dies takes no more.
    """
    order = json.dumps({"function": function, "limits": [seconds, wait, memory], "group": group, "cases": list(cases)})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(program, input=order, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [Ended(**fields) for fields in json.loads(done.stdout)]


def stage(name: str) -> None:
    """Report what the function does next."""
    os.write(_STAGE, json.dumps({"stage": name}).encode() + b"\n")


def _main() -> None:
    order = json.loads(sys.stdin.read())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for whatever prints
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.modules["support.forked_cases"] = sys.modules[__name__]  # what the function's module calls `stage` of
    module, _, name = order["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    waiting, ended = list(order["cases"]), []
    gc.freeze()  # a collection in a child would copy all memory
    while waiting:
        found = _in_a_child(function, waiting[: order["group"]], *order["limits"])
        ended += found
        del waiting[: len(found)]
    with answer:
        json.dump(ended, answer)


def _in_a_child(function: Any, cases: list[Any], seconds: int, wait: int, memory: int) -> list[dict[str, Any]]:
    """Return how one case after the other ended, up to the first that killed the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(function, cases, seconds, wait, memory, writing)
    os.close(writing)
    with os.fdopen(reading) as file:
        lines = [json.loads(line) for line in file]
    status = os.waitpid(child, 0)[1]
    ended: list[dict[str, Any]] = []
    last = None
    for line in lines:
        last = line.get("stage")
        if last is None:
            ended.append(line)
    if os.WIFSIGNALED(status):
        killed = signal.Signals(os.WTERMSIG(status)).name
        ended.append({"case": cases[len(ended)], "killed": killed, "stage": last})
    elif len(ended) < len(cases):
        ended.append({"case": cases[len(ended)], "killed": f"status {os.WEXITSTATUS(status)}", "stage": last})
    return ended


def _child(function: Any, cases: list[Any], seconds: int, wait: int, memory: int, writing: int) -> None:
    global _STAGE
    _STAGE = writing
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
                os.write(writing, json.dumps(line).encode() + b"\n")
    finally:
        os._exit(0)


def _call(function: Any, case: Any, seconds: int, wait: int) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    signal.alarm(wait)
    try:
        return {"case": case, "result": function(case)}
    except BaseException:  # noqa: BLE001  whatever it is, it is reported
        return {"case": case, "raised": traceback.format_exc()}
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    _main()
