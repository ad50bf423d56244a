"""A line that says how far a long run is: count, rate and time left."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

import click

DELAY = 2.0
"""Time before a run shows its progress, in seconds."""
_INTERVAL = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Shows itself on standard error once a run takes longer than two seconds; never where that is not a terminal.

    Threads may call it.
    """

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream is not None and self._stream.isatty()  # None: it was closed before we began
        self._start = self._drawn = time.monotonic()
        self._visible = False
        self._done, self._before, self._passes = 0, 0, (0, 0)
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._clear()

    def print(self, line: str, error: bool = False) -> None:
        """Print a line above the progress line."""
        with self._lock:
            self._clear()
            click.echo(line, err=error)

    def update(self, done: int, before: int = 0) -> None:
        """Say that `done` of the total are finished, `before` of them by an earlier run."""
        with self._lock:
            self._done, self._before, self._passes = done, before, (0, 0)
            self._draw()

    def passes(self, done: int, total: int) -> None:
        """Say how many passes are done for the image in work."""
        with self._lock:
            self._passes = (done, total)
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._start < DELAY:
            return
        if self._visible and now - self._drawn < _INTERVAL:
            return
        self._drawn, self._visible = now, True
        self._stream.write(_CLEAR + describe(self._done, self._total, now - self._start, *self._passes, self._before))
        self._stream.flush()

    def _clear(self) -> None:
        if self._visible:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._visible = False


def describe(done: int, total: int | None, seconds: float, passes: int = 0, of_passes: int = 0, before: int = 0) -> str:
    """`12/340 images, 3.4 images/s, 1:36 left`; slow ones are `40.0 s/image`, with `120/1280 passes` for the next.

    Where the total is not known, neither is the time left.
    """
    finished = done - before + (passes / of_passes if of_passes else 0)
    rate = finished / seconds
    pace = f"{rate:.1f} images/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/image"
    count = f", {passes}/{of_passes} passes" if of_passes else ""
    if total is None:
        return f"{done} images{count}, {pace}"
    left = round((total - before - finished) / rate) if rate else 0
    minutes, second = divmod(left, 60)
    hours, minute = divmod(minutes, 60)
    clock = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{done}/{total} images{count}, {pace}, {clock} left"
