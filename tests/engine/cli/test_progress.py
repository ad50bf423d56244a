"""Tests of `seewhy.cli.progress`: the line on a terminal with the number of images, the rate and the time left."""

from __future__ import annotations

import io

import pytest

from seewhy.cli import progress
from seewhy.cli.progress import Progress, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_as_text() -> None:
    assert describe(12, 340, 4) == "12/340 images, 3.0 images/s, 1:49 left"
    assert describe(1, 100_000, 1) == "1/100000 images, 1.0 images/s, 27:46:39 left"
    assert describe(5, 5, 0.5) == "5/5 images, 10.0 images/s, 0:00 left"
    assert describe(0, 5, 3) == "0/5 images, 0.0 images/s, 0:00 left"
    assert describe(2, 5, 200) == "2/5 images, 100.0 s/image, 5:00 left"
    # The third image is a quarter done, and each quarter of an image took 10 s.
    assert describe(2, 4, 90, 320, 1280) == "2/4 images, 320/1280 passes, 40.0 s/image, 1:10 left"


def test_progress_is_shown_late_and_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for stream, shown in [(Terminal(), True), (io.StringIO(), False)]:
        now[0] = 0
        with Progress(10, stream) as bar:
            now[0] = 1
            bar.update(1)
            assert stream.getvalue() == ""
            now[0] = 4
            bar.update(2)
            now[0] = 5
            bar.update_passes(5, 10)
        assert ("2/10 images, 2.0 s/image, 0:16 left" in stream.getvalue()) == shown
        assert ("2/10 images, 5/10 passes, 2.0 s/image, 0:15 left" in stream.getvalue()) == shown
        assert stream.getvalue().endswith("\r\x1b[K" if shown else "")
