"""Record the onnxruntime runs of a call, and repeat them alone: the lower bound of the call."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from seewhy._shared.cpu_count import usable_cores


@dataclass(frozen=True)
class Run:
    """One run of a session."""

    session: InferenceSession
    outputs: tuple[str, ...]
    feeds: dict[str, NDArray[Any]]

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(next(iter(self.feeds.values())))

    @property
    def single_threaded(self) -> bool:
        """True if the session has one thread, so that several callers share it."""
        return bool(self.session.get_session_options().intra_op_num_threads == 1)

    def __call__(self) -> None:
        InferenceSession.run(self.session, self.outputs, self.feeds)


_recording: _Recording | None = None


class _Recording:
    """Runs in the order of their start.

    Inputs of equal shapes are the same arrays, so that many runs take little memory.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._feeds: dict[Any, dict[str, NDArray[Any]]] = {}
        self._lock = threading.Lock()

    def add(self, session: InferenceSession, outputs: Sequence[str], feeds: Mapping[str, Any]) -> None:
        key = id(session), tuple((name, value.shape) for name, value in feeds.items())
        with self._lock:
            if key not in self._feeds:
                self._feeds[key] = {name: np.array(value) for name, value in feeds.items()}
            self.runs.append(Run(session, tuple(outputs), self._feeds[key]))


class _Recorded(InferenceSession):
    """Session whose runs are recorded."""

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        if _recording is not None:
            _recording.add(self, output_names, input_feed)
        return super().run(output_names, input_feed, run_options)


def record_sessions() -> None:
    """Make all sessions that start from now on recordable."""
    onnxruntime.InferenceSession = _Recorded


def runs_of(call: Callable[[], object]) -> list[Run]:
    """Return the runs of a call."""
    global _recording
    recording = _recording = _Recording()
    call()
    _recording = None
    return recording.runs


def repeat(runs: Iterable[Run]) -> None:
    """Repeat runs with nothing between them: those of single-threaded sessions on all cores, the others in turn."""
    for single_threaded, group in itertools.groupby(runs, lambda run: run.single_threaded):
        waiting, lock = iter(list(group)), threading.Lock()

        def work(waiting: Any = waiting, lock: Any = lock) -> None:
            while True:
                with lock:
                    run = next(waiting, None)
                if run is None:
                    return
                run()

        # The calling thread works, too: starting a thread takes longer than what surrounds a run of one image.
        callers = [threading.Thread(target=work) for _ in range(usable_cores() - 1 if single_threaded else 0)]
        for caller in callers:
            caller.start()
        work()
        for caller in callers:
            caller.join()
