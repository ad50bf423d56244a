"""Decide what SIGINT and SIGTERM do to the command line. A program that imports SeeWhy keeps its own handlers."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_HANDLED = (signal.SIGINT, signal.SIGTERM)

EXIT_SIGNALLED = 128
"""Exit status of a program that a signal ended, less the number of the signal. Shells use the same."""


class Stopped(KeyboardInterrupt):
    """A signal told the command to stop."""

    def __init__(self, number: int) -> None:
        """Remember the signal's number."""
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        """Return what to say: `stopped by SIGTERM`."""
        return f"stopped by {signal.Signals(self.number).name}"


def exit_at_once() -> None:
    """From now on, print one line and exit on SIGINT or SIGTERM. Used while modules are imported.

    Nothing has to be cleaned up then, and an exception in the middle of an import would come out as a traceback, or as
    an error about the module. A signal that was ignored when the program began stays ignored.
    """
    for number in _HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def raise_from_now_on() -> None:
    """Raise `Stopped` in the main thread from now on, so that what was begun is cleaned up.

    Do nothing unless `exit_at_once` was called before, so that programs which import SeeWhy keep their handlers.
    """
    for number in _HANDLED:
        if signal.getsignal(number) is _end:
            signal.signal(number, _raise)


def ignore_from_now_on() -> None:
    """Ignore signals while Python ends: the work is done, and nothing could be printed any more."""
    for number in _HANDLED:
        if signal.getsignal(number) in (_end, _raise):
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    if sys.stderr is not None:  # else another file may have its number
        with suppress(OSError):
            os.write(2, f"seewhy: {Stopped(number)}\n".encode())
    os._exit(EXIT_SIGNALLED + number)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
