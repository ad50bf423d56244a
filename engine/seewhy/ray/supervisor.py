"""Run `seewhy explain --ray` in a child process, because Ray may end the process that uses it.

When one of Ray's own processes dies, Ray's C++ core ends the driver with `_exit(1)`. No Python code runs, nothing is
printed, and status 1 would mean "some images failed". Therefore the process that the user started becomes a
supervisor, and the command runs in a child. The child reports its normal end. If it ends without this report, the
supervisor prints one line and exits with status 2.

The supervisor also kills the processes that the child has started and that are still running when the child has ended.
It does not touch a cluster that was running before.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The child reports the number of each signal that it gets, and this byte at its normal end.
_END = 0
# Time in seconds within which equal signals to both processes count as one signal.
_SAME_SIGNAL_SECONDS = 0.2
# Exit statuses after a second signal, which ends the command without a report. Ray does not use them.
_SIGNALLED = frozenset(128 + number for number in _SIGNALS)
# From <linux/prctl.h>.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def run_in_child() -> None:
    """Fork, return in the child, and supervise it in the parent.

    Call this before any thread is started. On systems other than Linux it does nothing.

    Raises:
        SystemExit: In the parent, after the child has ended, with the exit status of the command.
    """
    if sys.platform != "linux":
        return
    _open_standard_streams()
    reports, report = os.pipe()
    os.set_blocking(report, False)
    parent = os.getpid()
    # Orphans become children of this process, so that it finds all processes that the child has started.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Block signals until both processes are ready for them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGCHLD})
    child = os.fork()
    if child:
        os.close(report)
        supervisor = _Supervisor(child, reports)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(supervisor.run())
    # If the supervisor is killed, the child is killed, too. Otherwise it would keep the output folder locked unnoticed.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.close(reports)
    atexit.register(os.write, report, bytes([_END]))
    signal.set_wakeup_fd(report, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Supervisor:
    """Passes signals on to the child, waits until it ends, and determines the exit status."""

    def __init__(self, child: int, reports: int) -> None:
        self._child = child
        self._reports = reports
        self._ended_normally = False
        """True if the child has reported its normal end."""
        self._is_pipe_open = True
        """True if the child still has its side of the pipe for reports open."""
        self._code: int | None = None
        """Exit code of the child, or the negative number of the signal that killed it. None while it runs."""
        self._reported: list[tuple[int, float]] = []
        """Signals that the child got from other processes, and the times of the reports."""
        self._signals, signals = os.pipe()
        os.set_blocking(signals, False)
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        for number in (*_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def run(self) -> int:
        """Wait until the child and all processes that it has started have ended, and return the exit status."""
        while self._code is None:
            ready, _, _ = select.select([self._signals, *[self._reports] * self._is_pipe_open], [], [])
            if self._signals not in ready:
                self._read_reports(0)
                continue
            for number in os.read(self._signals, 256):
                if number == signal.SIGCHLD:
                    self._reap()
                elif self._code is None:
                    self._pass_on(number)
        self._read_reports(0)
        _kill_descendants()
        return self._status(self._code)

    def _reap(self) -> None:
        """Store the exit code of the child if it has ended, and remove orphans that have ended."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._child:
                    self._code = os.waitstatus_to_exitcode(ended[1])

    def _status(self, code: int) -> int:
        """Return the exit status of the command, and print why the child ended if it could not do so itself."""
        if -code in _SIGNALS:
            return 128 - code
        if code in _SIGNALLED or (self._ended_normally and code >= 0):
            return code
        if code < 0:
            reason = f"the driver process was killed by {signal.Signals(-code).name}"
        else:
            reason = f"Ray ended the driver process (exit status {code}); a process of the cluster has probably died"
        resume = f"the same command {'without --restart ' if '--restart' in sys.argv else ''}resumes the job"
        # On a terminal, the progress line of the child may still be visible.
        start = "\n" if os.isatty(2) else ""
        with suppress(OSError):  # the process that reads standard error may have ended
            os.write(2, f"{start}seewhy: error: {reason}; {resume}\n".encode())
        return 2

    def _pass_on(self, number: int) -> None:
        """Send the child a signal, unless it just got the same one: terminals and job managers often signal both."""
        now = time.monotonic()
        self._reported = [(other, when) for other, when in self._reported if when > now - _SAME_SIGNAL_SECONDS]
        if self._wait_for_report(number, now + _SAME_SIGNAL_SECONDS):
            return
        os.kill(self._child, number)
        self._wait_for_report(number, time.monotonic() + _SAME_SIGNAL_SECONDS)

    def _wait_for_report(self, number: int, deadline: float) -> bool:
        """Wait until the child reports this signal, and return whether it did."""
        while True:
            for signalled in self._reported:
                if signalled[0] == number:
                    self._reported.remove(signalled)
                    return True
            left = deadline - time.monotonic()
            if left <= 0 or not self._is_pipe_open:
                return False
            self._read_reports(left)

    def _read_reports(self, timeout: float) -> None:
        """Read the reports of the child, and wait at most `timeout` seconds for one."""
        if not select.select([self._reports], [], [], timeout)[0]:
            return
        reports = os.read(self._reports, 256)
        self._is_pipe_open = bool(reports)
        self._ended_normally = self._ended_normally or _END in reports
        self._reported += [(number, time.monotonic()) for number in reports if number in _SIGNALS]


def _kill_descendants() -> None:
    """Kill the children of this process, and the orphans that thereby become its children, until none is left."""
    with suppress(ChildProcessError):
        while True:
            for child in _children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    """Return the process ids of the children of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of a process, in parentheses, may hold spaces. After it come the state and the parent.
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def _open_standard_streams() -> None:
    """Open /dev/null for closed standard streams. Otherwise Ray would write into files with their descriptors."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
