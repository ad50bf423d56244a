"""Tests of `seewhy.cli.signals`: a signal gives one line and the right exit status, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seewhy.cli import signals
from seewhy.cli.main import main

SLOW_IMPORT = "import time; print('importing', flush=True); time.sleep(30)\n"


def start(*command: str, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload,no-any-return]


def errors_of(process: subprocess.Popen[str], number: int) -> str:
    """Wait for a process that signal `number` ends, and return its standard error."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    return errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["click", "numpy"])
def test_while_modules_are_imported(number: signal.Signals, module: str, model_path: Path, tmp_path: Path) -> None:
    """A module of the same name, which is found first, simulates a slow import."""
    (tmp_path / f"{module}.py").write_text(SLOW_IMPORT)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start(
        *(sys.executable, "-m", "seewhy", "inspect", str(model_path)), env={**os.environ, "PYTHONPATH": paths}
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(number)
    assert errors_of(process, number) == f"seewhy: stopped by {number.name}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_any_moment_of_the_startup(number: signal.Signals, model_path: Path) -> None:
    """The delay counts from SeeWhy's first line; Python's own start before it takes about 20 ms."""
    code = (
        "import sys, seewhy.__main__ as m, seewhy.cli.signals as s; s.exit_on_signals(); print('started', flush=True); "
        "sys.argv[0] = 'seewhy'; m.main()"
    )
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3, 0.45):
        process = start(sys.executable, "-c", code, "inspect", str(model_path))
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number), errors
        assert errors == ("" if process.returncode == 0 else f"seewhy: stopped by {number.name}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_images_are_listed(number: signal.Signals, model_path: Path, tmp_path: Path) -> None:
    """The list is a pipe without a writer, so that listing never ends."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "seewhy", "explain", str(model_path), "--list", "-", "-o", str(tmp_path / "out")]
    process = start(*command, stdin=read)
    os.close(read)
    time.sleep(2.0)
    process.send_signal(number)
    errors = errors_of(process, number)
    os.close(write)
    assert errors in (
        f"seewhy: stopped by {number.name} at once. Run the same command again to resume.\n",
        f"seewhy: stopped by {number.name}\n",
    )


def test_a_signal_that_was_ignored_stays_ignored(model_path: Path) -> None:
    """A shell starts background jobs so, because Ctrl-C is not meant for them."""
    code = (
        "import signal, os, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import seewhy.cli.signals as s; s.exit_on_signals(); s.raise_on_signals()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


def test_a_program_that_imports_the_command_line_keeps_its_handlers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signals.raise_on_signals()
    signals.ignore_signals()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert callable(main)


def test_sigterm_cleans_up() -> None:
    """While a command runs, SIGTERM raises an exception as Ctrl-C does."""
    code = (
        "import os, signal, seewhy.cli.signals as s; s.exit_on_signals(); s.raise_on_signals()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except KeyboardInterrupt as error:\n    print(error, error.number)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped by SIGTERM 15\n"), done.stderr


def test_a_closed_pipe_is_an_error(model_path: Path) -> None:
    """The exit status is 2, because 1 would mean that some images failed."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "seewhy", "inspect", "--json", str(model_path)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr == "seewhy: error: standard output: Broken pipe; the process that reads it has ended\n"
