"""Tests of `seewhy_export.cli.phase_lines`: one line for each phase on a terminal, and nothing elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from seewhy_export.cli.phase_lines import PhaseLines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_phase_gets_a_line_with_its_duration() -> None:
    stream = Terminal()
    with PhaseLines(stream) as phases:
        phases("tracing")
        assert stream.getvalue() == "tracing ..."
        phases("converting")
    assert re.fullmatch(r"tracing \.\.\. \d\.\d s\nconverting \.\.\. \d\.\d s\n", stream.getvalue())


def test_a_failed_phase_ends_its_line_without_a_duration() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), PhaseLines(stream) as phases:
        phases("tracing")
        raise KeyError
    assert stream.getvalue() == "tracing ...\n"


def test_nothing_is_written_without_a_phase_or_a_terminal() -> None:
    terminal, file = Terminal(), io.StringIO()
    with PhaseLines(terminal):
        pass
    with PhaseLines(file) as phases:
        phases("tracing")
    assert terminal.getvalue() == file.getvalue() == ""
