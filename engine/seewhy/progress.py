"""A line that says how far a long run is: count, rate and time left."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import click

_DELAY = 2.0
_INTERVAL = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Shows itself on standard error once a run takes longer than two seconds; never where that is not a terminal."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._start = self._drawn = time.monotonic()
        self._visible = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def print(self, line: str, error: bool = False) -> None:
        """Print a line above the progress line."""
        self._clear()
        click.echo(line, err=error)

    def update(self, done: int) -> None:
        """Say that `done` of the total are finished."""
        now = time.monotonic()
        if not self._terminal or now - self._start < _DELAY:
            return
        if self._visible and now - self._drawn < _INTERVAL:
            return
        self._drawn, self._visible = now, True
        self._stream.write(_CLEAR + describe(done, self._total, now - self._start))
        self._stream.flush()

    def _clear(self) -> None:
        if self._visible:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._visible = False


def describe(done: int, total: int, seconds: float) -> str:
    """`12/340 images, 3.4 images/s, 1:36 left`."""
    rate = done / seconds
    left = round((total - done) / rate) if rate else 0
    minutes, second = divmod(left, 60)
    hours, minute = divmod(minutes, 60)
    clock = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{done}/{total} images, {rate:.1f} images/s, {clock} left"
