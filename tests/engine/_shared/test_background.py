"""Tests of `seewhy._shared.background`: results and exceptions of a function that runs in a thread."""

from __future__ import annotations

import threading

import pytest

from seewhy._shared.background import Background


def test_the_function_runs_beside_the_caller() -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait() -> str:
        started.set()
        return threading.current_thread().name if go_on.wait(60) else "waited in vain"

    call = Background(wait, "beside")
    assert started.wait(60)
    go_on.set()
    assert call.result() == "beside"


def test_an_exception_is_raised_where_the_result_is_asked_for() -> None:
    error = KeyError("missing")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as raised:
        Background(fail, "fails").result()
    assert raised.value is error


def test_a_system_without_more_threads_calls_the_function_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Background(lambda: 3, "none").result() == 3
