"""Lines on a terminal that show which phase of an export runs, and how long the finished ones took."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class PhaseLines:
    """One line for each phase on standard error, with its duration. Nothing is shown if that is not a terminal.

    The object is called with the name of each phase when the phase starts.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Start without a phase.

        Args:
            stream: Stream to write to; None is standard error.
        """
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream is not None and self._stream.isatty()  # None if it was closed at startup
        self._started: float | None = None

    def __enter__(self) -> PhaseLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(finished=kind is None)

    def __call__(self, phase: str) -> None:
        """Show that a phase starts, and the duration of the one before."""
        self._end(finished=True)
        self._started = time.perf_counter()
        self._write(f"{phase} ...")

    def _end(self, finished: bool) -> None:
        """End the line of the running phase, with the duration if the phase is finished."""
        if self._started is not None:
            self._write(f" {time.perf_counter() - self._started:.1f} s\n" if finished else "\n")
        self._started = None

    def _write(self, text: str) -> None:
        if self._is_terminal:
            self._stream.write(text)
            self._stream.flush()
