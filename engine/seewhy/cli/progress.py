"""Progress line of a long job: number of images, rate and time left."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

import click

DELAY = 2.0
"""Time in seconds before the progress is shown."""
_INTERVAL_SECONDS = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Progress line on standard error, shown once the job takes longer than two seconds.

    Nothing is shown if standard error is not a terminal. All threads may call the methods.
    """

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        """Start the clock.

        Args:
            total: Number of images, or None if it is unknown.
            stream: Stream to draw on; None is standard error.
        """
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream is not None and self._stream.isatty()  # None if it was closed at startup
        self._start = self._drawn = time.monotonic()
        self._visible = False
        self._done, self._earlier, self._passes = 0, 0, (0, 0)
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

    def update(self, done: int, earlier: int = 0) -> None:
        """Show that `done` images are finished, of which earlier attempts finished `earlier`."""
        with self._lock:
            self._done, self._earlier, self._passes = done, earlier, (0, 0)
            self._draw()

    def update_passes(self, done: int, total: int) -> None:
        """Show how many passes are done for the current image."""
        with self._lock:
            self._passes = (done, total)
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._is_terminal or now - self._start < DELAY:
            return
        if self._visible and now - self._drawn < _INTERVAL_SECONDS:
            return
        self._drawn, self._visible = now, True
        text = describe(self._done, self._total, now - self._start, *self._passes, self._earlier)
        self._stream.write(_CLEAR + text)
        self._stream.flush()

    def _clear(self) -> None:
        if self._visible:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._visible = False


def describe(
    done: int, total: int | None, seconds: float, passes: int = 0, total_passes: int = 0, earlier: int = 0
) -> str:
    """Describe the progress of a job.

    Args:
        done: Number of images that are finished.
        total: Number of images; None leaves out the time left.
        seconds: Time since the job started.
        passes: Number of passes that are done for the current image.
        total_passes: Number of passes for the current image; 0 leaves them out.
        earlier: Number of finished images that earlier attempts finished. They do not count for the rate.

    Returns:
        Text such as `12/340 images, 3.4 images/s, 1:36 left`. Less than one image per second is written as
        `40.0 s/image`.
    """
    finished = done - earlier + (passes / total_passes if total_passes else 0)
    rate = finished / seconds
    pace = f"{rate:.1f} images/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/image"
    count = f", {passes}/{total_passes} passes" if total_passes else ""
    if total is None:
        return f"{done} images{count}, {pace}"
    left = round((total - earlier - finished) / rate) if rate else 0
    minutes, second = divmod(left, 60)
    hours, minute = divmod(minutes, 60)
    clock = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{done}/{total} images{count}, {pace}, {clock} left"
