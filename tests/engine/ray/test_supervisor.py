"""Tests of `seewhy.ray.supervisor`: exit statuses, signals, and the processes that the child leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seewhy.cli.main import main
from seewhy.ray import supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor needs Linux")

START = "import os, signal, sys, time; from seewhy.ray.supervisor import run_in_child; run_in_child(); "
# Prints each signal that it gets until standard input is closed. It does not block in a read, because Python would run
# the handler of a signal that comes just before it only after it.
PRINT = """
import select
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.write(1, b"%d\\n" % number))
print(os.getpid(), flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    pass
"""
KILLED = "seewhy: error: the driver process was killed by {}; the same command resumes the job\n"
ENDED = (
    "seewhy: error: Ray ended the driver process (exit status {}); a process of the cluster has probably died; the "
    "same command {}resumes the job\n"
)
PIPED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def run(code: str, *arguments: str) -> tuple[int, str, str]:
    """Run code in a supervised child, and return the exit status and what was printed."""
    done = subprocess.run([sys.executable, "-c", START + code, *arguments], **PIPED)
    return done.returncode, done.stdout, done.stderr


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", START + code], **PIPES, start_new_session=True)


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the process id of the child, which it prints when it is ready."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def ended(process: int) -> bool:
    """Return whether a process ends within five seconds. A zombie counts as ended."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("status", [0, 1, 2, 130, 143])
def test_a_normal_end(status: int) -> None:
    assert run(f"print('out'); print('err', file=sys.stderr); sys.exit({status})") == (status, "out\n", "err\n")


def test_an_error_in_python() -> None:
    status, _, errors = run("raise RuntimeError('a bug')")
    assert status == 1 and errors.endswith("RuntimeError: a bug\n")


@pytest.mark.parametrize("status", [0, 1, 2])
def test_an_end_without_python(status: int) -> None:
    """Ray's C++ core ends its driver so."""
    assert run(f"os._exit({status})") == (2, "", ENDED.format(status, ""))
    assert run(f"os._exit({status})", "--restart") == (2, "", ENDED.format(status, "without --restart "))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_signal_that_kills_the_child(number: signal.Signals) -> None:
    assert run(f"os.kill(os.getpid(), {int(number)})") == (2, "", KILLED.format(number.name))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_at_once_after_a_second_signal(number: signal.Signals) -> None:
    assert run(f"os._exit({128 + number})") == (128 + number, "", "")


def test_a_signal_that_the_child_does_not_handle() -> None:
    with start("print(os.getpid(), flush=True); time.sleep(60)") as process:
        child_of(process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("to", ["supervisor", "child", "group", "one after the other"])
def test_the_child_gets_each_signal_once(to: str, times: int, number: signal.Signals) -> None:
    """A person signals the command; a terminal or a job manager signals all processes."""
    with start(PRINT) as process:
        child = child_of(process)
        for _ in range(times):
            if to in ("supervisor", "one after the other"):
                process.send_signal(number)
            if to in ("child", "one after the other"):
                os.kill(child, number)
            if to == "group":
                os.killpg(process.pid, number)
            # The system merges a signal with an equal one that a process has not handled yet.
            assert process.stdout is not None and process.stdout.readline() == f"{int(number)}\n"
            time.sleep(0.5)
        printed, errors = process.communicate("", timeout=60)
    assert (process.returncode, printed, errors) == (0, "", "")


def test_two_signals_in_quick_succession() -> None:
    with start(PRINT) as process:
        child_of(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        printed, _ = process.communicate("", timeout=60)
    assert printed == f"{int(signal.SIGINT)}\n" * 2


def test_the_child_is_killed_with_the_supervisor() -> None:
    with start(PRINT) as process:
        child = child_of(process)
        process.kill()
        assert ended(child)


@pytest.mark.parametrize("end", ["os._exit(1)", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_is_left(end: str) -> None:
    """This holds even for an orphan in its own session that ignores signals."""
    code = f"""
if not os.fork():
    os.setsid()
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        for stream in range(3):
            os.close(stream)
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(0.2)
{end}
"""
    _, printed, _ = run(code)
    assert not Path(f"/proc/{int(printed)}").exists()


def test_standard_input() -> None:
    done = subprocess.run([sys.executable, "-c", START + "print(sys.stdin.read())"], input="a\nb", **PIPED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")


@pytest.mark.parametrize("closed", ["<&-", "1>&-", "2>&-", "<&- 1>&- 2>&-"])
@pytest.mark.parametrize(("end", "status"), [("sys.exit(1)", 1), ("os._exit(1)", 2)])
def test_closed_standard_streams(end: str, status: int, closed: str) -> None:
    """Output of C++ code to closed streams is discarded."""
    code = START + "os.write(1, b'x' * 300); os.write(2, bytes(300)); " + end
    done = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], **PIPED)
    assert done.returncode == status


def test_other_systems_are_not_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "fork", None)
    supervisor.run_in_child()


@pytest.mark.parametrize(("words", "expected"), [(["--ray"], 1), ([], 0)])
def test_only_the_command_with_ray_is_supervised(
    words: list[str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Callable[..., None]] = []
    monkeypatch.setattr(supervisor, "run_in_child", lambda: calls.append(main))
    monkeypatch.setattr(sys, "argv", ["seewhy", "explain", str(tmp_path / "no.onnx"), "-o", str(tmp_path), *words])
    with pytest.raises(SystemExit):
        main()
    with pytest.raises(SystemExit):  # a call from a program with other work
        main(sys.argv[1:])
    assert len(calls) == expected


def test_an_error_of_the_command(model_path: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "seewhy", "explain", str(model_path), "x.png", "-o", str(tmp_path / "out"), "--ray"]
    done = subprocess.run(words, **PIPED)
    expected = "seewhy: error: jobs on a Ray cluster write Parquet shards, not png; add --format parquet\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
