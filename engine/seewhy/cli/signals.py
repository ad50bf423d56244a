"""Handlers of SIGINT and SIGTERM for the command line. Programs that import SeeWhy keep their own handlers."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_HANDLED = (signal.SIGINT, signal.SIGTERM)

EXIT_SIGNALLED = 128
"""Exit status of a program that a signal ended, minus the number of the signal, as in a shell."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the command."""

    def __init__(self, number: int) -> None:
        """Store the number of the signal."""
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        """Return the message, such as `stopped by SIGTERM`."""
        return f"stopped by {signal.Signals(self.number).name}"


def exit_on_signals() -> None:
    """From now on, print one line and exit on SIGINT or SIGTERM.

    This is for the time in which modules are imported. Nothing needs to be cleaned up then, and an exception in the
    middle of an import would be printed as a traceback, or as an error about the module. A signal that was ignored when
    the program started stays ignored.
    """
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)


def raise_on_signals() -> None:
    """From now on, raise `Stopped` in the main thread on SIGINT or SIGTERM, so that the command can clean up.

    Do nothing unless `exit_on_signals` was called before, so that programs that import SeeWhy keep their handlers.
    """
    for number in _HANDLED:
        if signal.getsignal(number) is _exit:
            signal.signal(number, _raise)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM while Python ends: the work is done, and nothing can be printed any more."""
    for number in _HANDLED:
        if signal.getsignal(number) in (_exit, _raise):
            signal.signal(number, signal.SIG_IGN)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    if sys.stderr is not None:  # if standard error is closed, another file may have its descriptor
        with suppress(OSError):
            os.write(2, f"seewhy: {Stopped(number)}\n".encode())
    os._exit(EXIT_SIGNALLED + number)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
